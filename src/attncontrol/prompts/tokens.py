"""Words to token positions, from the pipeline's own tokenizers."""

from dataclasses import dataclass
from typing import Any

from attncontrol.errors import ModelError


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
) -> tuple[Token, ...]:
    """The text sequence of one encoder as the pipeline makes it: special tokens, truncation and
    padding to ``length`` included.

    ``length`` None is the tokenizer's limit. ``around`` is what the pipeline writes before and
    after the prompt; tokens there are special. ``offset`` is added to every index.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} reports no character offsets; "
            "load the fast tokenizer (the default of transformers >= 5)"
        )
    before, after = around
    batch = tokenizer(
        before + prompt + after,
        padding="max_length" if padding else False,
        max_length=tokenizer.model_max_length if length is None else length,
        truncation=True,
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
    )
    ids, offsets = batch["input_ids"], batch["offset_mapping"]
    texts = tokenizer.convert_ids_to_tokens(ids)
    sequence = []
    for i, (id_, text, characters) in enumerate(zip(ids, texts, offsets, strict=True)):
        start, end = (min(max(k - len(before), 0), len(prompt)) for k in characters)
        plain = text.removesuffix("</w>").removeprefix("\u2581").removeprefix("\u0120")
        sequence.append(Token(offset + i, id_, plain, start, end, start == end, encoder))
    return tuple(sequence)
