"""Facts of model architectures, one file each. A family is a value: nothing here acts on a pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from attncontrol.errors import UnsupportedError
from attncontrol.sites import Site, Where


@dataclass(frozen=True)
class Family:
    """The facts of one architecture.

    ``branches`` names the equal parts of the denoiser's batch in order. ``tokenizer`` is the one whose positions are the keys
    of cross-attention. ``steering(sites)`` is the measured default of sites and step size for test-time losses.
    """

    name: str
    matches: Callable[[Any], bool]
    denoiser: Callable[[Any], nn.Module]
    sites: Callable[[nn.Module], tuple[Site, ...]]
    branches: Callable[[Any], tuple[str, ...]]
    tokenizer: Callable[[Any], Any]
    latent_channels: Callable[[Any], int]
    steering: Callable[[tuple[Site, ...]], tuple[Where, float]]


def family_of(pipe: Any) -> Family:
    """The family of a pipeline. Raises UnsupportedError if none matches."""
    from attncontrol.families import unet

    families = (unet.FAMILY,)
    for family in families:
        if family.matches(pipe):
            return family
    parts = ", ".join(f"{k}={type(v).__name__}" for k, v in getattr(pipe, "components", {}).items() if v is not None)
    known = ", ".join(family.name for family in families)
    raise UnsupportedError(f"{type(pipe).__name__} ({parts or 'no components'}) belongs to no known family; known: {known}")
