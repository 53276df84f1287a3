"""FLUX.1 (``FluxTransformer2DModel``): joint attention over [text, picture] in double-stream and
single-stream blocks.

Text is the sequence of T5; CLIP enters as a pooled vector only. Latents are packed, 2 x 2 cells to
a token, and ``img_ids`` tells the row and column of each. Guidance is distilled (no uncond branch),
or true classifier-free guidance in two calls per step. Reference pictures of editing models follow
the picture; their first id is not 0.
"""

import math
from typing import Any

from diffusers import FluxTransformer2DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.families.autoencoder import shifted
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    as_written,
    has_transformer,
    in_line,
    text_length,
    transformer_sites,
    two_calls,
)
from attncontrol.prompts.tokens import Token, tokenize

PATCH = 2  # latent cells per side of a token


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(
        transformer, lambda name, _: "joint" if name.endswith(".attn") else None, PATCH
    )


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer, length = pipe.tokenizer_2, encoding["max_sequence_length"]
    written = as_written(pipe, tokenizer, prompt, encoding)
    return tokenize(tokenizer, prompt, length=length, encoder="t5", written=written)


def _grids(arguments: Arguments) -> list[tuple[int, int]]:
    """Of the picture that is denoised, and of every reference."""
    ids = arguments["img_ids"]
    ids = ids[0] if ids.ndim == 3 else ids
    of_each = [ids[ids[:, 0] == first, 1:3] for first in ids[:, 0].unique()]
    sides = [(own.amax(0) - own.amin(0) + 1).int().tolist() for own in of_each]
    return [(height, width) for height, width in sides]


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    return in_line(text_length(arguments), _grids(arguments))


def _latents(transformer: Any, arguments: Arguments) -> tuple[slice, ...]:
    """Fill, depth and canny models append channels, editing models append tokens."""
    channels = transformer.config.get("out_channels") or transformer.config.in_channels
    return slice(None), slice(math.prod(_grids(arguments)[0])), slice(channels)


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    latents = shifted(pipe, pictures)
    packed: Tensor = pipe._pack_latents(latents, *latents.shape)
    return packed


def _steering(sites: tuple[Site, ...]) -> tuple[Where, None]:
    """The last double-stream blocks 15 to 18 of the 19 of FLUX.1. In smaller models the first two
    thirds of the single-stream blocks, which localise words best in the bundled model.
    """
    single = [site.name for site in sites if site.name.startswith("single")]
    double = [site.name for site in sites if site.name not in single]
    chosen = double[15:19] or single[: -(-2 * len(single) // 3)] or double
    return Where(kind="joint", layers=tuple(chosen)), None


FAMILY = Family(
    name="flux",
    matches=has_transformer(FluxTransformer2DModel),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("t5", "text_encoder_2", _read, "prompt_2"),),
    layout=_layout,
    steering=_steering,
    latents=_latents,
    encode=_encode,
    batch_axis={"img_ids": None, "txt_ids": None},
    further="words",
)
