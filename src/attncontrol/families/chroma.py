"""Chroma (``ChromaTransformer2DModel``): FLUX.1 without CLIP, text masked after the first padding position, two calls per step."""

from typing import Any

from diffusers import ChromaTransformer2DModel

from attncontrol.families import Arguments, Family, flux
from attncontrol.tokens import Token, tokenize


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=encoding["max_sequence_length"], encoder="t5")


FAMILY = Family(
    name="chroma",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), ChromaTransformer2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=flux.FAMILY.sites,
    branches=flux.FAMILY.branches,
    tokens=_tokens,
    layout=flux.FAMILY.layout,
    steering=flux.FAMILY.steering,
    latents=flux.FAMILY.latents,
    encode=flux.FAMILY.encode,
    shared=flux.FAMILY.shared,
)
