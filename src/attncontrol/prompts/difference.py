"""In what two prompts differ: the kind of change that an edit is to make."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from attncontrol.prompts.lexicon import PICTURE_WORDS
from attncontrol.prompts.syntax import Entity, tell_apart
from attncontrol.prompts.tags import LeftOut

Kind = Literal["add", "swap", "remove", "recolour", "restyle", "other"]
_LOOKS = ("the picture itself", "a tag", "a style")  # reasons to leave a noun out


@dataclass(frozen=True)
class Difference:
    """``kind``: what the second prompt does to the things of the first; the first that is true of

    add        it has more things
    swap       it has others
    remove     it has fewer
    recolour   things have other modifiers
    restyle    words for the picture itself differ, or tags
    other      anything else, such as what things do
    none       nothing differs but spaces and case

    ``words`` is what differs, to be shown: "red cat -> blue cat".
    """

    kind: Kind | Literal["none"]
    words: str


def difference(before: str, after: str) -> Difference:
    """Raises WordError for prompts in a language that cannot be parsed; see ``tell_apart``."""
    (first, out), (second, further) = map(tell_apart, (before, after))
    gone, new = _others(first, second, _noun), _others(second, first, _noun)
    if gone or new:
        kind: Kind = "add" if len(new) > len(gone) else "swap" if new else "remove"
        return Difference(kind, _shown(before, gone, after, new))
    gone, new = _others(first, second, _whole), _others(second, first, _whole)
    if gone or new:
        words = {word for side in (gone, new) for entity in side for word in _whole(entity)[1:]}
        same = {word for word in words if all(word in _whole(e) for e in (*gone, *new))}
        styles = words - same <= PICTURE_WORDS
        return Difference("restyle" if styles else "recolour", _shown(before, gone, after, new))
    removed, added = _words(before, after)
    said = " ".join(before[start:end] for start, end in removed)
    instead = " ".join(after[start:end] for start, end in added)
    if not removed and not added:
        return Difference("none", "")
    within = [*_within(removed, before, out), *_within(added, after, further)]
    looks = bool(within) and all(within)
    return Difference(
        "restyle" if looks else "other", _arrow(said.strip(", "), instead.strip(", "))
    )


def _noun(entity: Entity) -> tuple[str, ...]:
    return (entity.noun.text.casefold(),)


def _whole(entity: Entity) -> tuple[str, ...]:
    return *_noun(entity), *sorted(word.text.casefold() for word in entity.modifiers)


def _others(
    these: Sequence[Entity], those: Sequence[Entity], key: Callable[[Entity], tuple[str, ...]]
) -> list[Entity]:
    """Of these, what those do not have as often."""
    there, found = Counter(map(key, those)), []
    for entity in these:
        there[key(entity)] -= 1
        if there[key(entity)] < 0:
            found.append(entity)
    return found


def _shown(before: str, gone: Sequence[Entity], after: str, new: Sequence[Entity]) -> str:
    sides = (before, gone), (after, new)
    return _arrow(*(", ".join(text[slice(*e.span)] for e in some) for text, some in sides))


def _arrow(said: str, instead: str) -> str:
    return f"{said or 'nothing'} -> {instead or 'nothing'}"


Ranges = list[tuple[int, int]]


def _words(before: str, after: str) -> tuple[Ranges, Ranges]:
    """The characters of words that differ, in both."""
    words = [list(re.finditer(r"[^\W_]+|[^\w\s]", prompt)) for prompt in (before, after)]
    texts = [[word.group().casefold() for word in of_prompt] for of_prompt in words]
    removed, added = Ranges(), Ranges()
    for what, a, b, c, d in SequenceMatcher(a=texts[0], b=texts[1], autojunk=False).get_opcodes():
        if what != "equal":
            removed += [word.span() for word in words[0][a:b]]
            added += [word.span() for word in words[1][c:d]]
    return removed, added


def _within(ranges: Ranges, prompt: str, left_out: Sequence[LeftOut]) -> list[bool]:
    """Of all words whether they are said of the picture: in a tag, or up to "painting" of "an oil
    painting of a cat"; signs, articles and "of" aside."""
    looks = []
    for each in left_out:
        if each.reason in _LOOKS:
            first = prompt.rfind(",", 0, each.start) + 1 if each.reason != _LOOKS[0] else 0
            looks.append((first, each.end))
    own = [(start, end) for start, end in ranges if prompt[start:end].casefold() not in _SMALL]
    return [any(a <= start and end <= b for a, b in looks) for start, end in own]


_SMALL = {"a", "an", "the", "of", "in", ",", ".", ":"}
