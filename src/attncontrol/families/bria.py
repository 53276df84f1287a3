"""Bria 3.2 (``BriaTransformer2DModel``): the layout of FLUX.1, with text of T5 alone, one call per
step. Zeros stand for padding, which is not masked, and for an empty negative prompt."""

from dataclasses import replace
from typing import Any

from diffusers import BriaTransformer2DModel

from attncontrol.families import flux
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import has_transformer, one_call
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    length = encoding["max_sequence_length"]
    return tokenize(pipe.tokenizer, prompt, length=length, padding=False, encoder="t5")


def _kept(_: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    length = encoding["max_sequence_length"]
    zeros = replace(tokens[-1], id=0, text="", start=0, end=0, special=True)
    return *tokens, *[replace(zeros, index=i) for i in range(len(tokens), length)]


FAMILY = Family(
    name="bria",
    matches=has_transformer(BriaTransformer2DModel),
    sites=flux.FAMILY.sites,
    branches=one_call,
    encoders=lambda _: (Encoder("t5", "text_encoder", _read, kept=_kept),),
    layout=flux.FAMILY.layout,
    encode=flux.FAMILY.encode,
    batch_axis=flux.FAMILY.batch_axis,
)
