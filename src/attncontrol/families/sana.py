"""Sana (``SanaTransformer2DModel``): cross-attention to Gemma. Its linear self-attention has no map
and is no site.

The pipeline writes an instruction before the prompt and keeps the first and the last positions of
the sequence.
"""

from dataclasses import replace
from typing import Any

from diffusers import SanaTransformer2DModel
from torch import Tensor

from attncontrol.attention.sites import Site, Where
from attncontrol.families.family import Arguments, Family
from attncontrol.families.parts import one_call, patch_layout, transformer_sites
from attncontrol.prompts.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(
        transformer,
        lambda name, _: "cross" if name.endswith("attn2") else None,
        transformer.config.patch_size,
    )


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    length, instruction = (
        encoding["max_sequence_length"],
        "\n".join(encoding["complex_human_instruction"] or ()),
    )
    extra = len(pipe.tokenizer.encode(instruction)) - 2 if instruction else 0
    tokens = tokenize(pipe.tokenizer, prompt, length=length + extra, around=(instruction, ""))
    kept = [tokens[0], *tokens[len(tokens) - length + 1 :]]
    return tuple(replace(token, index=i) for i, token in enumerate(kept))


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Its autoencoder has no distribution."""
    latents: Tensor = pipe.vae.encode(pictures.to(pipe.vae.device, pipe.vae.dtype)).latent
    return latents * pipe.vae.config.scaling_factor


FAMILY = Family(
    name="sana",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), SanaTransformer2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=_sites,
    branches=one_call,
    tokens=_tokens,
    layout=patch_layout,
    steering=lambda _: (Where(kind="cross"), 20.0),
    encode=_encode,
)
