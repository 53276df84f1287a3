"""Wan VACE (``WanVACETransformer3DModel``): the attention, the text and the calls of Wan 2.1, and a
second stack of blocks for the video, the mask and the pictures that are given, ``vace_blocks``,
whose cells look at the text as those of ``blocks`` do.

Reference pictures are frames before the video, which the pipeline drops in the end.
"""

from dataclasses import replace
from typing import Any

from diffusers import WanVACETransformer3DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import wan
from attncontrol.families.encoder import Arguments
from attncontrol.families.parts import has_transformer


def _references(transformer: Any, control: Tensor) -> int:
    """How many frames come before the video: those without latents of what is to be changed."""
    channels = transformer.config.in_channels
    changed = control[:, channels : 2 * channels].abs().amax((0, 1, 3, 4)) > 0
    return int(changed.cummax(0).values.logical_not().sum())


def _layout(transformer: Any, arguments: Arguments, site: Site) -> Layout:
    whole = wan.FAMILY.layout(transformer, arguments, site)
    frames, height, width = whole.grid
    given, cells = _references(transformer, arguments["control_hidden_states"]), height * width
    pictures = (slice(k * cells, (k + 1) * cells) for k in range(given))
    return replace(
        whole,
        grid=(frames - given, height, width),
        image=slice(given * cells, None),
        references=tuple(Layout((height, width), place) for place in pictures),
    )


FAMILY = replace(
    wan.FAMILY,
    name="wan-vace",
    matches=has_transformer(WanVACETransformer3DModel),
    layout=_layout,
    batch_axis={"control_hidden_states_scale": None},
)
