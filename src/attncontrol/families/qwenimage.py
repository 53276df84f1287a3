"""Qwen-Image (``QwenImageTransformer2DModel``): joint attention over [Qwen2.5-VL, picture], packed
latents, two calls per step.

The pipeline writes the prompt into a template and drops the positions before the prompt. Padding is
masked. Reference pictures of editing models follow the picture.
"""

import math
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.flux import PATCH
from attncontrol.families.parts import MARK, in_line, text_length, transformer_sites, two_calls
from attncontrol.prompts.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, lambda *_: "joint", PATCH)


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    before, after = pipe.prompt_template_encode.format(MARK).split(MARK)
    return tokenize(
        pipe.tokenizer,
        prompt,
        length=pipe.tokenizer_max_length + pipe.prompt_template_encode_start_idx,
        padding=False,
        around=(before, after),
        encoder="qwen",
    )


def _kept(pipe: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    dropped = pipe.prompt_template_encode_start_idx
    return tokens[dropped : dropped + encoding["max_sequence_length"]]


def _grids(arguments: Arguments) -> list[tuple[int, int]]:
    """``img_shapes`` lists for every prompt (frames, height, width) of the picture, then those of
    the references."""
    shapes = arguments["img_shapes"][0]
    shapes = shapes if isinstance(shapes, list) else [shapes]
    return [(height, width) for _, height, width in shapes]


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    return in_line(text_length(arguments), _grids(arguments))


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    vae = pipe.vae
    latents = vae.encode(pictures[:, :, None].to(vae.device, vae.dtype)).latent_dist.mean[:, :, 0]
    mean, deviation = (
        torch.tensor(statistics)[:, None, None].to(latents)
        for statistics in (vae.config.latents_mean, vae.config.latents_std)
    )
    packed: Tensor = pipe._pack_latents((latents - mean) / deviation, *latents.shape)
    return packed


FAMILY = Family(
    name="qwenimage",
    matches=lambda pipe: isinstance(
        getattr(pipe, "transformer", None), QwenImageTransformer2DModel
    ),
    denoiser=lambda pipe: pipe.transformer,
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    steering=lambda _: (Where(kind="joint"), None),
    latents=lambda _, arguments: (slice(None), slice(math.prod(_grids(arguments)[0]))),
    encode=_encode,
    further="words",
)
