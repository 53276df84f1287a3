"""PixArt-alpha and -Sigma (``PixArtTransformer2DModel``): self-attention, then cross-attention to T5."""

from typing import Any

from diffusers import PixArtTransformer2DModel

from attncontrol.families import Arguments, Family, cross_sites, one_call, patch_layout
from attncontrol.sites import Where
from attncontrol.tokens import Token, tokenize


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=encoding["max_sequence_length"], encoder="t5")


FAMILY = Family(
    name="pixart",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), PixArtTransformer2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=cross_sites,
    branches=one_call,
    tokens=_tokens,
    layout=patch_layout,
    steering=lambda _: (Where(kind="cross"), 20.0),
)
