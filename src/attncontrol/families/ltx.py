"""LTX-Video (``LTXVideoTransformer3DModel``): self-attention, then cross-attention to T5, on packed latents.

Recording only.
"""

from typing import Any

from diffusers import LTXVideoTransformer3DModel

from attncontrol.families import VIDEO, Arguments, Family, Layout, one_call, transformer_sites
from attncontrol.sites import Site
from attncontrol.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, lambda name, _: "cross" if name.endswith("attn2") else "self", 1)


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=encoding["max_sequence_length"], encoder="t5")


FAMILY = Family(
    name="ltx",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), LTXVideoTransformer3DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=_sites,
    branches=one_call,
    tokens=_tokens,
    layout=lambda _, arguments, __: Layout((arguments["num_frames"], arguments["height"], arguments["width"])),
    steering=VIDEO,
)
