"""Words and phrases to token positions."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice

from attncontrol.errors import WordError
from attncontrol.prompts.tokens import Span, Subject, Token


def find(tokens: Sequence[Token], prompt: str, phrase: str) -> Span:
    """Token positions of ``phrase`` in ``prompt``, whose text sequence is ``tokens``.

    Whole words, case-insensitive. All occurrences count together; ``"cat#2"`` names the second one.
    A word of several tokens has several positions, and so has a word that several encoders read.
    Raises WordError if the phrase is not in the prompt, has no such occurrence, or is (even partly)
    beyond the text limit of every encoder.
    """
    wanted, _, number = phrase.partition("#")
    wanted = wanted.strip()
    if not wanted or (number and not (number.isdecimal() and int(number))):
        raise WordError(
            f"{phrase!r} is not a word; "
            "write 'cat', 'red car' or, for the second occurrence, 'cat#2'"
        )
    pattern = r"\s+".join(re.escape(part) for part in wanted.split())
    matches = list(re.finditer(rf"(?<!\w){pattern}(?!\w)", prompt, re.IGNORECASE))
    if not matches:
        words = ", ".join(dict.fromkeys(re.findall(r"\w[\w'-]*", prompt)))
        raise WordError(f"{wanted!r} is not in the prompt {prompt!r}; its words are: {words}")
    if number:
        if int(number) > len(matches):
            raise WordError(
                f"{phrase!r}: the prompt {prompt!r} has {len(matches)} occurrence(s) of {wanted!r}"
            )
        matches = [matches[int(number) - 1]]
    limits = {
        encoder: max(t.end for t in tokens if t.encoder == encoder)
        for encoder in {t.encoder for t in tokens}
    }
    positions: list[int] = []
    for match in matches:
        if match.end() > max(limits.values()):
            raise WordError(
                f"{phrase!r} (characters {match.start()}-{match.end()}) lies beyond the text limit "
                f"of {len(tokens)} tokens; the model reads only "
                f"{prompt[: max(limits.values())]!r}. Move the word forward or shorten the prompt"
            )
        readable = [t for t in tokens if match.end() <= limits[t.encoder]]
        positions += [t.index for t in readable if t.start < match.end() and match.start() < t.end]
    return Span(phrase, tuple(positions))


def span_at(tokens: Sequence[Token], text: str, start: int, end: int) -> Span:
    """The positions of a word by its characters. Raises WordError if no encoder reads all of it."""
    positions = tuple(t.index for t in tokens if t.start < end and start < t.end)
    if not any(t.end >= end for t in tokens):
        raise WordError(
            f"{text!r} (characters {start}-{end}) lies beyond the text limit; shorten the prompt"
        )
    return Span(text, positions)


def every_token(tokens: Sequence[Sequence[Token]]) -> tuple[tuple[Span, ...], ...]:
    """Every token of every text sequence by itself."""
    return tuple(
        tuple(Span(token.text, (token.index,)) for token in sequence) for sequence in tokens
    )


Words = Sequence[str] | Mapping[str, Sequence[str]]
Group = str | Sequence[str]
Groups = Sequence[Group] | Mapping[str, Sequence[Group]]
"""Subjects: a noun, or modifiers and last their noun; for all prompts or for each."""


def subjects(
    read: Callable[[str], Sequence[Token]], prompts: Sequence[str | None], groups: Groups
) -> tuple[tuple[Subject, ...], ...]:
    """The subjects of every prompt; see ``resolve``."""
    lists = groups.values() if isinstance(groups, Mapping) else [groups]
    if any(isinstance(group, str) for group in lists):
        raise WordError(f"words must be a list such as ['cat', ['red', 'car']], not {groups!r}")
    named = dict(groups) if isinstance(groups, Mapping) else {str(p): groups for p in prompts}
    phrases = {
        prompt: [[group] if isinstance(group, str) else list(group) for group in of_prompt]
        for prompt, of_prompt in named.items()
    }
    if not all(phrase for each in phrases.values() for phrase in each):
        raise WordError(
            f"a subject is a noun, or modifiers and last their noun, not []: {groups!r}"
        )
    flat = {prompt: list(chain.from_iterable(each)) for prompt, each in phrases.items()}
    return tuple(
        _grouped(spans, [len(phrase) for phrase in phrases[str(prompt)]])
        for prompt, spans in zip(prompts, resolve(read, prompts, flat), strict=True)
    )


def _grouped(spans: Sequence[Span], sizes: Sequence[int]) -> tuple[Subject, ...]:
    """Spans one after the other, the last of each group its noun."""
    rest = iter(spans)
    groups = [list(islice(rest, size)) for size in sizes]
    return tuple(Subject(noun, tuple(modifiers)) for *modifiers, noun in groups)


def resolve(
    read: Callable[[str], Sequence[Token]], prompts: Sequence[str | None], words: Words
) -> tuple[tuple[Span, ...], ...]:
    """Spans of the words for every prompt, whose text sequence is ``read(prompt)``.

    ``words`` holds for all prompts, or maps each prompt to its own words.
    """
    resolved: dict[str, tuple[Span, ...]] = {}
    for prompt in dict.fromkeys(prompts):
        if prompt is None:
            raise WordError(
                "words cannot be located without the prompt; "
                "call the pipeline with prompt=..., not prompt_embeds=..."
            )
        if isinstance(words, Mapping) and prompt not in words:
            raise WordError(
                f"no words are given for the prompt {prompt!r}; "
                f"words are given for: {', '.join(map(repr, words))}"
            )
        wanted = words[prompt] if isinstance(words, Mapping) else words
        if isinstance(wanted, str) or not wanted:
            raise WordError(
                f"words must be a non-empty list such as ['cat', 'frog'], not {wanted!r}"
            )
        tokens = read(prompt)
        resolved[prompt] = tuple(find(tokens, prompt, word) for word in wanted)
    return tuple(resolved[prompt] for prompt in prompts if prompt is not None)
