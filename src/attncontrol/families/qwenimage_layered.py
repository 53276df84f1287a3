"""Qwen-Image-Layered (``QwenImageTransformer2DModel``): joint attention over [Qwen2.5-VL, the
whole picture, its layers, the picture that is given], packed latents, two calls per step.

Maps have an axis of layers where those of videos have one of frames; the first is the whole, which
the pipeline drops. The text encoder reads the prompt as in Qwen-Image, without the picture.
"""

import math
from dataclasses import replace
from typing import Any

from diffusers import QwenImageLayeredPipeline

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import qwenimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.parts import text_length
from attncontrol.prompts.tokens import Token


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    return qwenimage.read(pipe, prompt, {**encoding, "image": None})


def _kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return qwenimage.kept(pipe, {**encoding, "image": None}, tokens)


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    first, *layers, given = qwenimage.grids(arguments)
    grid, start = (1 + len(layers), *first), text_length(arguments)
    end = start + math.prod(grid)
    beside = Layout(given, slice(end, end + math.prod(given)))
    return Layout(grid, slice(start, end), slice(start), references=(beside,))


def _latents(_: Any, arguments: Arguments) -> tuple[slice, ...]:
    *layers, _ = qwenimage.grids(arguments)
    return slice(None), slice(sum(map(math.prod, layers)))


FAMILY = replace(
    qwenimage.FAMILY,
    name="qwenimage-layered",
    matches=lambda pipe: isinstance(pipe, QwenImageLayeredPipeline),
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    latents=_latents,
    encode="it makes layers of another one",
    further=None,
)
