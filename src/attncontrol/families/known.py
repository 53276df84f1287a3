"""Which families there are, and which one a pipeline belongs to.

Families are found by listing this package. ``FAMILIES.insert(0, my_family)`` teaches the package
another architecture.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from attncontrol.errors import ModelError
from attncontrol.families.family import Family
from attncontrol.families.refused import REFUSED

FAMILIES: list[Family] = []
FALLBACKS = "unknown", "unknown_joint"
"""Modules of families that match whatever has their kind of attention: these come last."""


class _Uncompiled:
    """A pipeline, with the components that torch.compile was given."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # what isinstance asks for
        return type(self._pipe)

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._pipe, name)
        return getattr(part, "_orig_mod", part)


def _inner(family: Family, pipe: Any) -> nn.Module:
    return family.denoiser(_Uncompiled(pipe))


def family_of(pipe: Any) -> Family:
    """The family of a pipeline, whose denoiser is that which torch.compile was given. Raises
    ModelError if none matches."""
    if isinstance(pipe, type):
        raise ModelError(
            f"{pipe.__name__} is a class: give a pipeline, as from_pretrained(...) makes"
        )
    if not any(family.name == "unknown" for family in FAMILIES):
        modules = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
        others = {"autoencoder", "encoder", "family", "known", "parts", "refused", *FALLBACKS}
        names = sorted({*modules} - others)
        described = [_described(name) for name in (*names, *FALLBACKS)]
        FAMILIES.extend(family for family in described if family is not None)
    components = {
        name: part for name, part in getattr(pipe, "components", {}).items() if part is not None
    }
    is_compiled = any(hasattr(part, "_orig_mod") for part in components.values())
    shown: Any = _Uncompiled(pipe) if is_compiled else pipe
    components = {name: getattr(part, "_orig_mod", part) for name, part in components.items()}
    for family in FAMILIES:
        if family.name == "unknown":
            _require_not_refused(pipe, components)
        if family.matches(shown):
            return replace(family, denoiser=partial(_inner, family)) if is_compiled else family
    parts = ", ".join(f"{name}={type(part).__name__}" for name, part in components.items())
    known = ", ".join(family.name for family in FAMILIES)
    raise ModelError(
        f"{type(pipe).__name__} ({parts or 'no components'}) belongs to no known family; "
        f"known: {known}. Describe it with attncontrol.families.Family (branches, encoders, layout "
        "...) and insert that into attncontrol.families.FAMILIES"
    )


def _described(name: str) -> Family | None:
    """The family of a module; None if its model is not in the installed diffusers."""
    try:
        found: Family = importlib.import_module(f"{__package__}.{name}").FAMILY
    except ImportError as error:
        if error.name != "diffusers":
            raise
        return None
    return found


def _require_not_refused(pipe: Any, components: Mapping[str, Any]) -> None:
    """Raises ModelError for a denoiser that is known and cannot be described."""
    for part in components.values():
        if (reason := REFUSED.get(type(part).__name__)) is not None:
            raise ModelError(
                f"{type(pipe).__name__} with its {type(part).__name__} is not supported: {reason}. "
                "attncontrol/families/README.md lists the pipelines that are"
            )
