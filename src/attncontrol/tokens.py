"""Words to token positions, from the pipeline's own tokenizers."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attncontrol.errors import UnsupportedError, WordError


@dataclass(frozen=True)
class Token:
    """One position of the text sequence. ``start:end`` is its character range of the prompt, empty for special tokens.

    ``index`` counts through the text sequences of all ``encoder``s that the model reads one after the other.
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
    """The text sequence of one encoder as the pipeline makes it: special tokens, truncation and padding to ``length`` included.

    ``length`` None is the tokenizer's limit. ``around`` is what the pipeline writes before and after the prompt; tokens there are
    special. ``offset`` is added to every index.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedError(
            f"{type(tokenizer).__name__} reports no character offsets; load the fast tokenizer (the default of transformers >= 5)"
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
    found = []
    for i, (id_, text, characters) in enumerate(zip(ids, texts, offsets, strict=True)):
        start, end = (min(max(k - len(before), 0), len(prompt)) for k in characters)
        plain = text.removesuffix("</w>").removeprefix("\u2581").removeprefix("\u0120")
        found.append(Token(offset + i, id_, plain, start, end, start == end, encoder))
    return tuple(found)


def find(tokens: Sequence[Token], prompt: str, phrase: str) -> Span:
    """Token positions of ``phrase`` in ``prompt``, whose text sequence is ``tokens``.

    Whole words, case-insensitive. All occurrences count together; ``"cat#2"`` names the second one. A word of several tokens
    has several positions, and so has a word that several encoders read. Raises WordError if the phrase is not in the prompt,
    has no such occurrence, or is (even partly) beyond the text limit of every encoder.
    """
    wanted, _, number = phrase.partition("#")
    wanted = wanted.strip()
    if not wanted or (number and not (number.isdecimal() and int(number))):
        raise WordError(f"{phrase!r} is not a word; write 'cat', 'red car' or, for the second occurrence, 'cat#2'")
    pattern = r"\s+".join(re.escape(part) for part in wanted.split())
    matches = list(re.finditer(rf"(?<!\w){pattern}(?!\w)", prompt, re.IGNORECASE))
    if not matches:
        words = ", ".join(dict.fromkeys(re.findall(r"\w[\w'-]*", prompt)))
        raise WordError(f"{wanted!r} is not in the prompt {prompt!r}; its words are: {words}")
    if number:
        if int(number) > len(matches):
            raise WordError(f"{phrase!r}: the prompt {prompt!r} has {len(matches)} occurrence(s) of {wanted!r}")
        matches = [matches[int(number) - 1]]
    limits = {encoder: max(t.end for t in tokens if t.encoder == encoder) for encoder in {t.encoder for t in tokens}}
    positions: list[int] = []
    for match in matches:
        if match.end() > max(limits.values()):
            raise WordError(
                f"{phrase!r} (characters {match.start()}-{match.end()}) lies beyond the text limit of "
                f"{len(tokens)} tokens; the model reads only {prompt[: max(limits.values())]!r}. "
                "Move the word forward or shorten the prompt"
            )
        readable = [t for t in tokens if match.end() <= limits[t.encoder]]
        positions += [t.index for t in readable if t.start < match.end() and match.start() < t.end]
    return Span(phrase, tuple(positions))


def at(tokens: Sequence[Token], text: str, start: int, end: int) -> Span:
    """The positions of a word by its characters. Raises WordError if no encoder reads all of it."""
    positions = tuple(t.index for t in tokens if t.start < end and start < t.end)
    if not any(t.end >= end for t in tokens):
        raise WordError(f"{text!r} (characters {start}-{end}) lies beyond the text limit; shorten the prompt")
    return Span(text, positions)


def each(tokens: Sequence[Sequence[Token]]) -> tuple[tuple[Span, ...], ...]:
    """Every token of every text sequence by itself."""
    return tuple(tuple(Span(token.text, (token.index,)) for token in of) for of in tokens)


Words = Sequence[str] | Mapping[str, Sequence[str]]
Group = str | Sequence[str]
Groups = Sequence[Group] | Mapping[str, Sequence[Group]]
"""Subjects: a noun, or modifiers and last their noun; for all prompts or for each."""


def subjects(
    read: Callable[[str], Sequence[Token]], prompts: Sequence[str | None], groups: Groups
) -> tuple[tuple[Subject, ...], ...]:
    """The subjects of every prompt; see ``resolve``."""
    lists = groups.values() if isinstance(groups, Mapping) else [groups]
    if any(isinstance(of, str) for of in lists):
        raise WordError(f"words must be a list such as ['cat', ['red', 'car']], not {groups!r}")
    named = dict(groups.items()) if isinstance(groups, Mapping) else {str(p): groups for p in prompts}
    flat = {p: [w for group in of for w in ([group] if isinstance(group, str) else group)] for p, of in named.items()}
    found = []
    for prompt, spans in zip(prompts, resolve(read, prompts, flat), strict=True):
        rest, of_prompt = list(spans), []
        for group in named[str(prompt)]:
            size = 1 if isinstance(group, str) else len(group)
            *modifiers, noun = rest[:size]
            rest = rest[size:]
            of_prompt.append(Subject(noun, tuple(modifiers)))
        found.append(tuple(of_prompt))
    return tuple(found)


def resolve(read: Callable[[str], Sequence[Token]], prompts: Sequence[str | None], words: Words) -> tuple[tuple[Span, ...], ...]:
    """Spans of the words for every prompt, whose text sequence is ``read(prompt)``.

    ``words`` holds for all prompts, or maps each prompt to its own words.
    """
    resolved: dict[str, tuple[Span, ...]] = {}
    for prompt in dict.fromkeys(prompts):
        if prompt is None:
            raise WordError("words cannot be located without the prompt; call the pipeline with prompt=..., not prompt_embeds=...")
        if isinstance(words, Mapping) and prompt not in words:
            raise WordError(f"no words are given for the prompt {prompt!r}; words are given for: {', '.join(map(repr, words))}")
        wanted = words[prompt] if isinstance(words, Mapping) else words
        if isinstance(wanted, str) or not wanted:
            raise WordError(f"words must be a non-empty list such as ['cat', 'frog'], not {wanted!r}")
        tokens = read(prompt)
        resolved[prompt] = tuple(find(tokens, prompt, word) for word in wanted)
    return tuple(resolved[prompt] for prompt in prompts if prompt is not None)


def locate(pipe: Any, prompt: str, phrase: str, **encoding: Any) -> Span:
    """Token positions of a word or phrase of the prompt, on the key side of the pipeline's text attention. See ``find``.

    ``encoding`` are arguments of the pipeline that change how it reads the prompt, such as ``max_sequence_length``.
    """
    from attncontrol.families import default_encoding, family_of

    return find(family_of(pipe).tokens(pipe, prompt, default_encoding(pipe) | encoding), prompt, phrase)
