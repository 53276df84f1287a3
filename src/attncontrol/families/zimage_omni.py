"""Z-Image-Omni (``ZImageTransformer2DModel``): joint attention over [Qwen3, given pictures,
picture, SigLIP] in ``layers``; one call, [cond, uncond].

Rows are lists of pictures, the noisy one last. The text is read in parts, between which the given
pictures would stand: each part, and each picture, is filled up to a multiple of 32 positions, which
are not masked inside a row. Otherwise as Z-Image.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from diffusers import ZImageOmniPipeline

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import zimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.prompts.tokens import Token, tokenize

_BEGIN, _END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
_NOTHING = Token(0, -1, "", 0, 0, special=True, encoder="qwen")
"""Filling, which the text encoder does not read."""


def _parts(pictures: int) -> list[tuple[str, str] | str]:
    """What is written before and after the prompt in its part, and the other parts."""
    if not pictures:
        return [(_BEGIN, _END)]
    between = ["<|vision_end|><|vision_start|>"] * (pictures - 1)
    own = ("<|vision_end|>", f"{_END}<|vision_start|>")
    return [f"{_BEGIN}<|vision_start|>", *between, own, "<|vision_end|><|im_end|>"]


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    """Every part has positions from 0."""
    given = encoding.get("image")
    shown = given if isinstance(given, list) else [given] * (given is not None)
    found: list[Token] = []
    for part in _parts(encoding.get("num_condition_images") or len(shown)):
        around, said = (part, prompt) if isinstance(part, tuple) else ((part, ""), "")
        read = tokenize(
            pipe.tokenizer, said, length=encoding["max_sequence_length"], padding=False,
            around=around, encoder="qwen",
        )  # fmt: skip
        filling = range(len(read), zimage.filled_up(len(read)))
        found += [*read, *(replace(_NOTHING, index=i) for i in filling)]
    return tuple(found)


def _rows(tokens: Sequence[Token]) -> list[list[Token]]:
    rows: list[list[Token]] = []
    for token in tokens:
        rows += [[]] * (token.index == 0)
        rows[-1] = [*rows[-1], token] if token.id >= 0 else rows[-1]
    return rows


def _layout(_: Any, arguments: Arguments, site: Site) -> Layout:
    patch = arguments.get("patch_size", 2)
    grids = [(one.shape[-2] // patch, one.shape[-1] // patch) for one in arguments["x"][0]]
    starts = [0, *accumulate(zimage.filled_up(math.prod(grid)) for grid in grids)]
    texts = [sum(zimage.filled_up(len(part)) for part in row) for row in arguments["cap_feats"]]
    before = texts if site.kind == "joint" else [0] * len(texts)

    def places(length: int) -> list[Layout]:
        """Of all pictures behind a text."""
        firsts = [length + start for start in starts[:-1]]
        pairs = zip(grids, firsts, strict=True)
        return [Layout(grid, slice(first, first + math.prod(grid))) for grid, first in pairs]

    of_rows = [places(length) for length in before]
    noisy = tuple(own.image_slice for *_, own in of_rows)
    own = Layout(grids[-1], noisy, slice(max(before)))
    return own.reading([tuple(others) for *others, _ in of_rows])


FAMILY = replace(
    zimage.FAMILY,
    name="zimage-omni",
    matches=lambda pipe: isinstance(pipe, ZImageOmniPipeline),
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, rows=_rows),),
    layout=_layout,
    encode="its pipeline writes into the list of prompts that it is given",
)
