"""GLM-Image (``GlmImageTransformer2DModel``): joint attention over [ByT5, picture], two calls per
step.

ByT5 reads what stands in quotation marks, each text by itself, byte by byte; these alone are words
here. The rest of the prompt reaches the picture as tokens of a language model, which are added to
its cells. The texts of a batch are filled up from the left with zeros, which are not masked. Given
pictures are keys that a run before the first step leaves behind; that is not described.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from diffusers import GlmImageTransformer2DModel

from attncontrol.errors import CallError
from attncontrol.families import cogview3, cogview4
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import has_transformer, joint_sites, two_calls
from attncontrol.prompts.tokens import QUOTED, Token

_QUOTES = (("'", "'"), ("\u201c", "\u201d"), ('"', '"'), ("\u300c", "\u300d"))
"""In the order in which the pipeline looks for them."""
_OF_PICTURES = "GLM-Image with pictures to edit is not described; call it without image=..."
_NOTHING = Token(0, -1, "", 0, 0, special=True, encoder=QUOTED)  # zeros, which no token is


def _texts(pipe: Any, prompt: str) -> list[tuple[int, str]]:
    """Where each text begins, and the text. Raises CallError if the pipeline finds others."""
    patterns = [f"{left}([^{left}{right}]*){right}" for left, right in _QUOTES]
    found = [(match.start(1), match[1]) for each in patterns for match in re.finditer(each, prompt)]
    (expected,) = pipe.get_glyph_texts(prompt)
    if [text for _, text in found] != list(expected):
        raise CallError(
            f"{type(pipe).__name__} reads {expected} of the prompt {prompt!r}, in a way that is "
            "not known; name positions of the text instead of words, such as words=[2, 5]"
        )
    return found or [(0, "")]


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    """Filled up to the longest of those that are read together."""
    own = _own(pipe, prompt, encoding)
    longest = max(len(_own(pipe, text, encoding)) for text in cogview4.together(prompt, encoding))
    filled = [_NOTHING] * (longest - len(own)) + own
    return tuple(replace(token, index=i) for i, token in enumerate(filled))


def _own(pipe: Any, prompt: str, encoding: Arguments) -> list[Token]:
    """All texts, one after another. Of an even number of them each has padding before it."""
    texts, tokenizer = _texts(pipe, prompt), pipe.tokenizer
    pad = replace(_NOTHING, id=tokenizer.pad_token_id, text=tokenizer.pad_token)
    found: list[Token] = []
    for start, text in texts:
        found += [pad] * ((len(texts) + 1) % 2)
        found += _of_text(tokenizer, start, text, encoding)
    return found


def _of_text(tokenizer: Any, start: int, text: str, encoding: Arguments) -> Iterator[Token]:
    """Each is a byte of a character; in texts that hold names of special tokens none is known."""
    ids = tokenizer(text, max_length=encoding["max_sequence_length"], truncation=True).input_ids
    places = [start + i for i, character in enumerate(text) for _ in character.encode()]
    plain = [byte + tokenizer.offset for byte in text.encode()][: len(ids) - 1]
    is_plain = ids == [*plain, tokenizer.eos_token_id]
    for number, (id_, piece) in enumerate(
        zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True)
    ):
        known = is_plain and number < len(plain)
        first = places[number] if known else 0
        yield Token(0, id_, piece, first, first + known, special=not known, encoder=QUOTED)


def _rows(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """Each text ends with a token of its own."""
    own = [token for token in tokens if token.id != _NOTHING.id]
    ends = [i + 1 for i, token in enumerate(own) if token.text == "</s>"]
    return [own[start:end] for start, end in pairwise([0, *ends])]


def _latents(_: Any, arguments: Arguments) -> tuple[slice, ...]:
    caches = arguments.get("kv_caches")
    if caches is not None and caches[0].mode is not None:
        raise CallError(_OF_PICTURES)
    return (slice(None),)


def _branches(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    if parts == 0:  # a picture is looked at, by a row of its own
        raise CallError(_OF_PICTURES)
    return two_calls(pipe, nth, parts)


FAMILY = Family(
    name="glmimage",
    matches=has_transformer(GlmImageTransformer2DModel),
    sites=joint_sites,
    branches=_branches,
    encoders=lambda _: (Encoder(QUOTED, "text_encoder", _read, rows=_rows),),
    layout=cogview3.layout,
    latents=_latents,
    encode="in every run a language model writes other tokens for it",
)
