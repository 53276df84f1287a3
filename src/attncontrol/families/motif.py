"""Motif-Video, text or picture to video (``MotifVideoTransformer3DModel``): joint attention over
[video, SigLIP, T5Gemma 2], and beside it cross-attention to the text alone, two calls per step.
Padding is masked.

A first frame that is given lies in further channels, and features of it before the text. The last
blocks, the decoder, attend to the cells of both stacks and to no text; they are no sites.
"""

import math
from typing import Any

from diffusers import MotifVideoTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.families.encoder import Arguments
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    first_channels,
    has_transformer,
    t5,
    transformer_sites,
    two_calls,
    video_grid,
)


def _sites(transformer: Any) -> tuple[Site, ...]:
    single = len(transformer.single_transformer_blocks)
    last = range(single - transformer.num_decoder_layers, single)
    decoder = {f"single_transformer_blocks.{k}.attn" for k in last}

    def kind(name: str, _: Any) -> Kind | None:
        if name in decoder:
            return None
        return "cross" if name.endswith("cross_attn") else "joint"

    return transformer_sites(transformer, kind, transformer.config.patch_size)


def _layout(transformer: Any, arguments: Arguments, site: Site) -> Layout:
    grid, features = video_grid(transformer, arguments), arguments.get("image_embeds")
    if site.kind == "cross":
        return Layout(grid)
    cells = math.prod(grid)
    before_text = cells + (0 if features is None else features.shape[1])
    return Layout(grid, slice(cells), slice(before_text, None))


FAMILY = Family(
    name="motif",
    matches=has_transformer(MotifVideoTransformer3DModel),
    sites=_sites,
    branches=two_calls,
    encoders=t5,
    layout=_layout,
    latents=first_channels(1),
    encode=MAKES_VIDEOS,
)
