"""The prompt of a record: which of its words have maps, and what the parse says about them."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from attncontrol.errors import AttnControlError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.prompts.syntax import Word, analyse

Range = tuple[int, int]
"""First and last character (exclusive)."""


@dataclass(frozen=True)
class Shown:
    """A word of the record: its place ``index`` on the token axis, its unique name and its
    characters of the prompt."""

    index: int
    name: str
    ranges: tuple[Range, ...]


def shown_words(maps: AttentionMaps, image: int, *, most: int) -> tuple[Shown, ...]:
    """The words of an image, at most ``most``: of special tokens the first of each kind, for
    padding says nothing new."""
    tokens = {token.index: token for token in maps.tokens[image]} if maps.tokens else {}
    seen: Counter[str] = Counter()
    found = []
    for index, span in enumerate(maps.spans[image]):
        ranges = _joined(
            [(t.start, t.end) for p in span.positions if (t := tokens.get(p)) and not t.special],
            maps.prompts[image],
        )
        if tokens and not span.positions:  # a word of other images
            continue
        seen[span.text] += 1
        if tokens and not ranges and seen[span.text] > 1:
            continue
        found.append(
            Shown(
                index,
                span.text if seen[span.text] == 1 else f"{span.text}#{seen[span.text]}",
                ranges,
            )
        )
    return tuple(found[:most])


def _joined(ranges: list[Range], prompt: str) -> tuple[Range, ...]:
    """Sorted, those that touch or have only blanks between them made one."""
    joined: list[Range] = []
    for start, end in sorted(set(ranges)):
        if joined and not prompt[joined[-1][1] : start].strip():
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def segments(prompt: str, words: tuple[Shown, ...]) -> list[dict[str, Any]]:
    """The prompt in pieces {text, word}: ``word`` is the place in ``words``, or None. Of words that
    overlap the first is taken."""
    taken: list[tuple[Range, int]] = []
    for number, word in enumerate(words):
        free = [
            r
            for r in word.ranges
            if not any(r[0] < end and start < r[1] for (start, end), _ in taken)
        ]
        taken += [(r, number) for r in free]
    pieces: list[dict[str, Any]] = []
    at = 0
    for (start, end), number in sorted(taken):
        pieces += [{"text": prompt[at:start], "word": None}] * (start > at)
        pieces.append({"text": prompt[start:end], "word": number})
        at = end
    return pieces + [{"text": prompt[at:], "word": None}] * (at < len(prompt))


def entities(prompt: str, words: tuple[Shown, ...]) -> dict[str, Any]:
    """{found: nouns with their modifiers, note: why there are none}; of each the places in
    ``words`` whose maps add up to it."""
    try:
        parsed = analyse(prompt)
    except AttnControlError as error:
        return {"found": [], "note": str(error)}
    found = [
        {
            "noun": _named(entity.noun, words),
            "modifiers": [_named(modifier, words) for modifier in entity.modifiers],
        }
        for entity in parsed
    ]
    return {"found": found, "note": None if found else "The parse finds no noun in this prompt."}


def _named(word: Word, words: tuple[Shown, ...]) -> dict[str, Any]:
    """The word with exactly these characters, else the pieces that lie within them."""
    exact = [k for k, shown in enumerate(words) if shown.ranges == ((word.start, word.end),)]
    within = [
        k
        for k, shown in enumerate(words)
        if shown.ranges and all(_inside(r, word) for r in shown.ranges)
    ]
    return {"text": word.text, "words": exact[:1] or within}


def _inside(characters: Range, word: Word) -> bool:
    return word.start <= characters[0] and characters[1] <= word.end
