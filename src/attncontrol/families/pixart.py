"""PixArt-alpha and -Sigma (``PixArtTransformer2DModel``): self-attention, then cross-attention to T5."""

from typing import Any

from diffusers import PixArtTransformer2DModel

from attncontrol.families import Arguments, Family, Layout, one_call, patch_grid
from attncontrol.sites import Site, Where
from attncontrol.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    return tuple(
        Site(name, "cross" if name.endswith("attn2") else "self", module.heads, transformer.config.patch_size)
        for name, module in transformer.named_modules()
        if hasattr(module, "processor")
    )


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=encoding["max_sequence_length"], encoder="t5")


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    return Layout(patch_grid(transformer, arguments))


FAMILY = Family(
    name="pixart",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), PixArtTransformer2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=_sites,
    branches=one_call,
    tokens=_tokens,
    layout=_layout,
    steering=lambda _: (Where(kind="cross"), 20.0),
)
