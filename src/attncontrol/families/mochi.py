"""Mochi 1 (``MochiTransformer3DModel``): joint attention over [video, T5], [uncond, cond]
in one call per step.

Every row is computed by itself over the text that it has: what is seen is one call of all rows, in
which padding is masked (``attention.by_row``).
"""

import math
from typing import Any

from diffusers import MochiTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    has_transformer,
    joint_sites,
    one_call,
    video_grid,
)
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    length = encoding["max_sequence_length"]
    return tokenize(pipe.tokenizer, prompt, length=length, padding=False, encoder="t5")


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    grid = video_grid(transformer, arguments)
    cells = math.prod(grid)
    return Layout(grid, slice(cells), slice(cells, None))


FAMILY = Family(
    name="mochi",
    matches=has_transformer(MochiTransformer3DModel),
    sites=joint_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("t5", "text_encoder", _read),),
    layout=_layout,
    encode=MAKES_VIDEOS,
)
