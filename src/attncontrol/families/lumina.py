"""Lumina-Next, the first Lumina (``LuminaNextDiT2DModel``): self-attention, beside it
cross-attention to Gemma, [cond, uncond] in one call per step.

The prompts of a batch are filled up to the longest of them and on to a multiple of 8 positions,
negative ones to as many. Padding is masked.
"""

from typing import Any

from diffusers import LuminaNextDiT2DModel

from attncontrol.families import cogview4
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import as_written, cross_sites, one_call, patch_layout
from attncontrol.prompts.tokens import Token, tokenize

_MULTIPLE = 8


def _branches(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    return one_call(pipe, nth, parts)[::-1]


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer = pipe.tokenizer

    def read(text: str, most: int) -> tuple[Token, ...]:
        written = as_written(pipe, tokenizer, text, encoding)
        return tokenize(
            tokenizer, text, length=most, padding=False, encoder="gemma", written=written
        )

    given = encoding.get("prompt") or prompt
    texts = [given] if isinstance(given, str) else given
    longest = max(len(read(text, pipe.max_sequence_length)) for text in texts)
    own = read(prompt, -(-longest // _MULTIPLE) * _MULTIPLE)  # at which negative ones are cut off
    if tokenizer.padding_side != "left":
        return own
    return cogview4.filled(tokenizer, own, longest, _MULTIPLE)


FAMILY = Family(
    name="lumina",
    matches=lambda pipe: type(getattr(pipe, "transformer", None)) is LuminaNextDiT2DModel,
    sites=cross_sites,
    branches=_branches,
    encoders=lambda _: (Encoder("gemma", "text_encoder", _read),),
    layout=patch_layout,
    encode=scaled,
)
