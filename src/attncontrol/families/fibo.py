"""Bria FIBO (``BriaFiboTransformer2DModel``): the layout of FLUX.1, with text of SmolLM3, of whose
layers every block reads another; one call per step. Padding is masked."""

from dataclasses import replace
from typing import Any

from diffusers import BriaFiboTransformer2DModel
from torch import Tensor

from attncontrol.attention.sites import Where
from attncontrol.errors import CallError
from attncontrol.families import flux
from attncontrol.families.autoencoder import standardised
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.parts import has_transformer, one_call
from attncontrol.prompts.tokens import Token, tokenize

BEGIN = 128000  # what the pipeline reads instead of an empty text


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    if not prompt:
        return (Token(0, BEGIN, "", 0, 0, special=True),)
    if pipe.tokenizer.padding_side != "right":
        raise CallError("FIBO with a tokenizer that fills up from the left is not supported")
    length = encoding["max_sequence_length"]
    return tokenize(pipe.tokenizer, prompt, length=length, padding=False)


def _branches(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    """The pipeline calls ``encode_prompt`` without saying whether it is guided."""
    guided = pipe.guidance_scale > 1 if parts is None else parts == 2
    return one_call(pipe, nth, 1 + guided)


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Every cell is a token, unless the call says ``do_patching``."""
    latents = standardised(pipe, pictures[:, :, None])[:, :, 0]
    packed: Tensor = pipe._pack_latents_no_patch(latents, *latents.shape)
    return packed


FAMILY = replace(
    flux.FAMILY,
    name="fibo",
    matches=has_transformer(BriaFiboTransformer2DModel),
    branches=_branches,
    encoders=lambda _: (Encoder("text", "text_encoder", _read),),
    steering=lambda _: (Where(kind="joint"), None),
    encode=_encode,
    further=None,
)
