"""Sana-Video text to video (``SanaVideoTransformer3DModel``): cross-attention to Gemma, whose text
is that of Sana. Its linear self-attention has no map and is no site.
"""

from dataclasses import replace
from typing import Any

from diffusers import SanaVideoPipeline, SanaVideoTransformer3DModel

from attncontrol.attention.sites import Site
from attncontrol.families import sana
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    has_transformer,
    transformer_sites,
    video_layout,
)


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(
        transformer,
        lambda name, _: "cross" if name.endswith("attn2") else None,
        transformer.config.patch_size[-1],
    )


FAMILY = replace(
    sana.FAMILY,
    name="sana-video",
    matches=has_transformer(SanaVideoTransformer3DModel, of=SanaVideoPipeline),
    sites=_sites,
    layout=video_layout,
    encode=MAKES_VIDEOS,
)
