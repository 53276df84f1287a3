"""Words to token positions, from the pipeline's own tokenizers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from attncontrol.errors import ModelError
from attncontrol.prompts.origin import Origin, source
from attncontrol.prompts.pieces import keeps_characters, ranges

QUOTED = "quoted"
"""The encoder of tokens of what stands in quotation marks, the only text that its model reads."""


@dataclass(frozen=True)
class Token:
    """One position of the text sequence. ``start:end`` is its character range of the prompt, empty
    for special tokens.

    ``index`` counts through the text sequences of all ``encoder``s that the model reads one after
    the other.
    """

    index: int
    id: int
    text: str
    start: int
    end: int
    special: bool
    encoder: str = "text"


@dataclass(frozen=True)
class Span:
    """The token positions of a word or phrase."""

    text: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    """A noun and the words that modify it."""

    noun: Span
    modifiers: tuple[Span, ...] = ()

    @property
    def positions(self) -> tuple[int, ...]:
        """Of all its words."""
        return tuple(p for span in (*self.modifiers, self.noun) for p in span.positions)


def ends(tokens: Sequence[Token]) -> list[int]:
    """What ends the text of every encoder: the numbers of special tokens right after a word."""
    pairs = enumerate(pairwise(tokens), 1)
    return [i for i, (word, token) in pairs if token.special and not word.special]


def tokenize(
    tokenizer: Any,
    prompt: str,
    *,
    length: int | None = None,
    padding: bool = True,
    add_special_tokens: bool = True,
    around: tuple[str, str] = ("", ""),
    offset: int = 0,
    encoder: str = "text",
    written: tuple[str, Origin] | None = None,
) -> tuple[Token, ...]:
    """The text sequence of one encoder as the pipeline makes it: special tokens, truncation and
    padding to ``length`` included.

    ``length`` None is the tokenizer's limit. ``around`` is what the pipeline writes before and
    after the prompt; tokens there are special. ``offset`` is added to every index. ``written`` is
    what the pipeline makes of the prompt before, and where its characters come from.
    """
    is_fast = bool(getattr(tokenizer, "is_fast", False))
    if not is_fast and not keeps_characters(tokenizer):
        raise ModelError(
            f"{type(tokenizer).__name__} reports no character offsets; "
            "load the fast tokenizer (the default of transformers >= 5)"
        )
    (before, after), (text, origin) = around, written or (prompt, range(len(prompt)))
    whole = before + text + after
    batch = tokenizer(
        whole,
        padding="max_length" if padding else False,
        max_length=tokenizer.model_max_length if length is None else length,
        truncation=True,
        add_special_tokens=add_special_tokens,
        **({"return_offsets_mapping": True} if is_fast else {}),
    )
    ids = batch["input_ids"]
    offsets = batch["offset_mapping"] if is_fast else _offsets(tokenizer, whole, batch)
    pieces, sequence = tokenizer.convert_ids_to_tokens(ids), []
    for i, (id_, piece, characters) in enumerate(zip(ids, pieces, offsets, strict=True)):
        start, end = (min(max(k - len(before), 0), len(text)) for k in characters)
        plain = piece.removesuffix("</w>").removeprefix("\u2581").removeprefix("\u0120")
        special = start == end
        start, end = (start, end) if special else source(origin, start, end)
        sequence.append(Token(offset + i, id_, plain, start, end, special, encoder))
    return tuple(sequence)


def _offsets(tokenizer: Any, text: str, batch: Any) -> list[tuple[int, int]]:
    found = ranges(tokenizer, text, batch["input_ids"], batch["attention_mask"])
    if found is None:
        raise ModelError(
            f"{type(tokenizer).__name__} reports no character offsets, and where its tokens come "
            "from in the prompt is not certain; name positions of the text instead of words, such "
            "as words=[2, 5]"
        )
    return found


def merged(tokens: Sequence[Token]) -> tuple[Token, ...]:
    """One token for every position. Where encoders beside each other read different words it has no
    range of characters."""
    ordered = sorted(tokens, key=lambda token: token.index)
    return tuple(_one(list(of)) for _, of in groupby(ordered, key=lambda token: token.index))


def _one(tokens: Sequence[Token]) -> Token:
    said = [token for token in tokens if not token.special]
    if len(said) < 2 or len({token.text for token in said}) == 1:
        return replace((said or tokens)[0], encoder=tokens[0].encoder)
    text = "|".join(token.text for token in said)
    return replace(tokens[0], text=text, start=0, end=0, special=False)
