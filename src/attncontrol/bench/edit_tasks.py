"""The tasks of the editing bench: a prompt, another one that says it otherwise, and a seed.

recolour  "a red cat and a frog" -> "a blue cat and a frog"
swap      "a red cat and a frog" -> "a red dog and a frog"
add       "a red cat" -> "a red cat and a frog"
remove    "a red cat and a frog" -> "a red cat"
style     "a cat" -> "a frog", on the same background
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from attncontrol.sprites.scenes import COLORS, NOUNS, Thing, caption

Things = tuple[Thing, ...]


@dataclass(frozen=True)
class Task:
    """What the source shows, what the edited picture is to show, and the seed of both.

    ``changed`` is the thing that the source has and the target has not, or has otherwise;
    ``wanted`` what the target has instead; ``other`` stays. None where there is none.
    """

    kind: str
    seed: int
    source: Things
    target: Things
    changed: Thing | None
    wanted: Thing | None
    other: Thing | None

    @property
    def prompt(self) -> str:
        return caption(self.source)[0]

    @property
    def to(self) -> str:
        return caption(self.target)[0]


Words = tuple[str, str, str, str, str]
"""Three nouns and two colours."""
Parts = tuple[Things, Things, Thing | None, Thing | None, Thing | None]
"""``source`` to ``other`` of a task."""


def _recolour(words: Words) -> Parts:
    noun, rest, _, color, hue = words
    before, after, other = Thing(noun, color), Thing(noun, hue), Thing(rest)
    return (before, other), (after, other), before, after, other


def _swap(words: Words) -> Parts:
    noun, rest, new, color, _ = words
    before, after, other = Thing(noun, color), Thing(new, color), Thing(rest)
    return (before, other), (after, other), before, after, other


def _add(words: Words) -> Parts:
    noun, new, _, color, _ = words
    other, wanted = Thing(noun, color), Thing(new)
    return (other,), (other, wanted), None, wanted, other


def _remove(words: Words) -> Parts:
    noun, gone, _, color, _ = words
    other, changed = Thing(noun, color), Thing(gone)
    return (other, changed), (other,), changed, None, other


def _style(words: Words) -> Parts:
    before, after = Thing(words[0]), Thing(words[1])
    return (before,), (after,), before, after, None


KINDS: Mapping[str, Callable[[Words], Parts]] = {
    "recolour": _recolour, "swap": _swap, "add": _add, "remove": _remove, "style": _style,
}  # fmt: skip


def tasks(kind: str, seeds: Sequence[int]) -> Iterator[Task]:
    """Without end, one seed after another; the same on every machine."""
    for number in count():
        rng = np.random.default_rng((23, number))
        nouns = map(str, rng.choice(list(NOUNS), 3, replace=False))
        colors = map(str, rng.choice(list(COLORS), 2, replace=False))
        words: Words = (*nouns, *colors)  # type: ignore[assignment]  # five of them
        yield Task(kind, seeds[number % len(seeds)], *KINDS[kind](words))
