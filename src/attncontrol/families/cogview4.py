"""CogView4 (``CogView4Transformer2DModel``): joint attention over [GLM-4, picture], two calls per
step.

The prompts of a batch are filled up from the left to the longest of them and on to a multiple of 16
positions, which are not masked.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from diffusers import CogView4Transformer2DModel

from attncontrol.families import cogview3
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import has_transformer, joint_sites, two_calls
from attncontrol.prompts.tokens import Token, tokenize

_MULTIPLE = 16


def together(prompt: str, encoding: Arguments) -> list[str]:
    """The texts that are filled up with this one."""
    for name in ("prompt", "negative_prompt"):
        texts = encoding.get(name) or ""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if prompt in texts:
            return texts
    return [prompt]


def filled(tokenizer: Any, own: Sequence[Token], longest: int, multiple: int) -> tuple[Token, ...]:
    """The tokens of a text, filled up from the left to the longest and on to a multiple."""
    left = -(-longest // multiple) * multiple - len(own)
    pad = Token(0, tokenizer.pad_token_id, tokenizer.pad_token, 0, 0, special=True)
    return tuple(replace(token, index=i) for i, token in enumerate([*[pad] * left, *own]))


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer, most = pipe.tokenizer, encoding["max_sequence_length"]
    own = tokenize(tokenizer, prompt, length=most, padding=False)
    longest = max(len(tokenizer(text).input_ids) for text in together(prompt, encoding))
    return filled(tokenizer, own, min(longest, most), _MULTIPLE)


FAMILY = Family(
    name="cogview4",
    matches=has_transformer(CogView4Transformer2DModel),
    sites=joint_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("text", "text_encoder", _read),),
    layout=cogview3.layout,
    encode=scaled,
)
