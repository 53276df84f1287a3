"""Kolors: the UNet of SDXL with the text of ChatGLM3, filled up from the left to
``max_sequence_length``. Padding is not masked. Its tokenizer reports no offsets: words are found in
its pieces (``prompts.pieces``). It needs sentencepiece."""

from dataclasses import replace
from typing import Any

from attncontrol.families import unet
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.prompts.tokens import Token, tokenize


def _matches(pipe: Any) -> bool:
    encoder = getattr(pipe, "text_encoder", None)
    return unet.FAMILY.matches(pipe) and type(encoder).__name__ == "ChatGLMModel"


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=encoding["max_sequence_length"], encoder="glm")


FAMILY = replace(
    unet.FAMILY,
    name="kolors",
    matches=_matches,
    encoders=lambda _: (Encoder("glm", "text_encoder", _read),),
    contrast=None,
    further=None,
)
