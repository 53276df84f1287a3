"""AnyFlow, text or frames to video (``AnyFlowTransformer3DModel``): self-attention, then
cross-attention to UMT5, whose text is that of Wan; [uncond, cond] in one call per step. Frames that
are given take the place of the noise.
"""

from typing import Any

from diffusers import AnyFlowTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import wan
from attncontrol.families.encoder import Arguments
from attncontrol.families.family import Family
from attncontrol.families.parts import MAKES_VIDEOS, cross_sites, has_transformer, one_call


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    frames, _channels, height, width = arguments["hidden_states"].shape[1:]
    over_time, down, across = transformer.config.patch_size
    return Layout((frames // over_time, height // down, width // across))


FAMILY = Family(
    name="anyflow",
    matches=has_transformer(AnyFlowTransformer3DModel),
    sites=cross_sites,
    branches=one_call,
    encoders=wan.FAMILY.encoders,
    layout=_layout,
    channels=2,
    encode=MAKES_VIDEOS,
)
