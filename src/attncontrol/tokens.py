"""Words to token positions, from the pipeline's own tokenizer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attncontrol.errors import UnsupportedError, WordError


@dataclass(frozen=True)
class Token:
    """One position of the text sequence. ``start:end`` is its character range of the prompt, empty for special tokens."""

    index: int
    id: int
    text: str
    start: int
    end: int
    special: bool


@dataclass(frozen=True)
class Span:
    """The token positions of a word or phrase."""

    text: str
    positions: tuple[int, ...]


def tokenize(tokenizer: Any, prompt: str) -> tuple[Token, ...]:
    """The text sequence as the pipeline encodes it: special tokens, truncation and padding included."""
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedError(
            f"{type(tokenizer).__name__} reports no character offsets; load the fast tokenizer (the default of transformers >= 5)"
        )
    batch = tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    ids, offsets = batch["input_ids"], batch["offset_mapping"]
    texts = tokenizer.convert_ids_to_tokens(ids)
    return tuple(
        Token(i, id_, text.removesuffix("</w>"), start, end, special=start == end)
        for i, (id_, text, (start, end)) in enumerate(zip(ids, texts, offsets, strict=True))
    )


def find(tokenizer: Any, prompt: str, phrase: str) -> Span:
    """Token positions of ``phrase`` in ``prompt``.

    Whole words, case-insensitive. All occurrences count together; ``"cat#2"`` names the second one. A word of several tokens
    has several positions. Raises WordError if the phrase is not in the prompt, has no such occurrence, or is (even partly)
    beyond the text limit.
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
    tokens = tokenize(tokenizer, prompt)
    limit = max((token.end for token in tokens), default=0)
    positions: list[int] = []
    for match in matches:
        if match.end() > limit:
            raise WordError(
                f"{phrase!r} (characters {match.start()}-{match.end()}) lies beyond the text limit of "
                f"{tokenizer.model_max_length} tokens; the model reads only {prompt[:limit]!r}. "
                "Move the word forward or shorten the prompt"
            )
        positions += [t.index for t in tokens if t.start < match.end() and match.start() < t.end]
    return Span(phrase, tuple(positions))


Words = Sequence[str] | Mapping[str, Sequence[str]]


def resolve(tokenizer: Any, prompts: Sequence[str | None], words: Words) -> tuple[tuple[Span, ...], ...]:
    """Spans of the words for every prompt. ``words`` holds for all prompts, or maps each prompt to its own words."""
    resolved: dict[str, tuple[Span, ...]] = {}
    for prompt in dict.fromkeys(prompts):
        if prompt is None:
            raise WordError("words cannot be located without the prompt; call the pipeline with prompt=..., not prompt_embeds=...")
        if isinstance(words, Mapping) and prompt not in words:
            raise WordError(f"no words are given for the prompt {prompt!r}; words are given for: {', '.join(map(repr, words))}")
        wanted = words[prompt] if isinstance(words, Mapping) else words
        if isinstance(wanted, str) or not wanted:
            raise WordError(f"words must be a non-empty list such as ['cat', 'frog'], not {wanted!r}")
        resolved[prompt] = tuple(find(tokenizer, prompt, word) for word in wanted)
    return tuple(resolved[prompt] for prompt in prompts if prompt is not None)


def locate(pipe: Any, prompt: str, phrase: str) -> Span:
    """Token positions of a word or phrase of the prompt, on the key side of the pipeline's text attention. See ``find``."""
    from attncontrol.families import family_of

    return find(family_of(pipe).tokenizer(pipe), prompt, phrase)
