"""Which characters of the prompt a changed text comes from, which the pipeline's tokenizer reads
instead: with lower case, cleaned up, or with a placeholder spelled out."""

import re
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher

Origin = Sequence[int | None]
"""For every character of a text its place in the prompt, None where it has none."""


def spelled_out(prompt: str, names: Collection[str]) -> tuple[str, Origin]:
    """A prompt in which ``<toy>`` is ``<toy> <toy>_1 <toy>_2`` if there are ``names`` like that, as
    textual inversions of several vectors are read. All of these come from ``<toy>``."""
    several = {
        name: [*dict.fromkeys(_numbered(name, names))] for name in names if f"{name}_1" in names
    }
    if not several:
        return prompt, range(len(prompt))
    pattern = "|".join(map(re.escape, sorted(several, key=len, reverse=True)))
    text, origin, end = "", list[int | None](), 0
    for match in re.finditer(pattern, prompt):
        text += prompt[end : match.start()]
        origin += range(end, match.start())
        written = " ".join([match[0], *several[match[0]]])
        text += written
        origin += [min(match.start() + k, match.end() - 1) for k in range(len(match[0]))]
        for name in several[match[0]]:
            spread = [match.start() + min(k, len(match[0]) - 1) for k in range(len(name))]
            origin += [None, *spread]
        end = match.end()
    return text + prompt[end:], [*origin, *range(end, len(prompt))]


def _numbered(name: str, names: Collection[str]) -> Sequence[str]:
    found: list[str] = []
    while f"{name}_{len(found) + 1}" in names:
        found.append(f"{name}_{len(found) + 1}")
    return found


def aligned(prompt: str, text: str) -> Origin:
    """Of a text that was made from the prompt in a way that is not known: what is equal but for its
    case, in order. Letters that were replaced have no origin."""
    before, after = _folded(prompt), _folded(text)
    if before == after:
        return range(len(text))
    origin: list[int | None] = [None] * len(text)
    changes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    for change, start, end, first, last in changes:
        punctuation = not any(map(str.isalnum, prompt[start:end] + text[first:last]))
        if change == "equal" or (change == "replace" and punctuation):
            for k in range(last - first):
                origin[first + k] = min(start + k, end - 1)
    for word in re.finditer(r"\w+", text):  # one that was changed in part is another word
        places = origin[word.start() : word.end()]
        if places != list(_following(places[0], len(places))):
            origin[word.start() : word.end()] = [None] * len(places)
    return origin


def _following(first: int | None, count: int) -> Sequence[int]:
    return range(first, first + count) if first is not None else ()


def _folded(text: str) -> str:
    """In lower case, as many characters as before."""
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def source(origin: Origin, start: int, end: int) -> tuple[int, int]:
    """The range of the prompt that the characters ``start:end`` come from; empty if they come from
    nowhere, or from places apart."""
    places = [place for place in origin[start:end] if place is not None]
    if not places:
        return 0, 0
    first, last = min(places), max(places) + 1
    return (first, last) if last - first <= end - start else (0, 0)
