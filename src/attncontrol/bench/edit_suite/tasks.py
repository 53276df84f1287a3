"""What is edited: prompts and seeds, the same on every machine."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from attncontrol.attention.regions import Box
from attncontrol.bench.tasks import square
from attncontrol.sprites.scenes import COLORS, NOUNS, Thing, caption

FIRST_SEED = 1000  # settings were chosen on others, all below
_STYLE = 1_000_000  # from the seed of a source to that of a picture in its style


@dataclass(frozen=True)
class Task:
    """From the things of a source, none for regions, to others: ``before`` becomes ``after``, the
    ``rest`` stays."""

    kind: str
    source: tuple[Thing, ...]
    target: tuple[Thing, ...]
    seed: int
    before: Thing | None = None
    after: Thing | None = None
    rest: Thing | None = None
    boxes: Mapping[str, Box] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        return caption(self.target)[0]

    @property
    def source_prompt(self) -> str:
        return caption(self.source)[0]

    @property
    def target_seed(self) -> int:
        """Of the noise of the target, which is the source's but for style."""
        return self.seed + (_STYLE if self.kind == "style" else 0)

    def __str__(self) -> str:
        return f"{self.source_prompt} -> {self.prompt}" if self.source else self.prompt


def tasks(kind: str) -> Iterator[Task]:
    """Without end; each has a seed of its own. Kinds share their sources."""
    return (task(kind, number) for number in itertools.count())


def task(kind: str, number: int) -> Task:
    return drawn(kind, number, np.random.default_rng((17, number)))


def drawn(kind: str, number: int, rng: np.random.Generator) -> Task:
    """With the words that ``rng`` chooses; of an even and an odd number other things change."""
    nouns = [str(noun) for noun in rng.choice(NOUNS, 3, replace=False)]
    color, changed = (str(color) for color in rng.choice(list(COLORS), 2, replace=False))
    thing, rest, new = Thing(nouns[0], color), Thing(nouns[1]), Thing(nouns[2])
    seed, second = FIRST_SEED + number, bool(number % 2)
    pair = (thing, rest)
    if kind == "recolour":
        other = Thing(nouns[0], changed)
        return Task(kind, pair, (other, rest), seed, thing, other, rest)
    if kind == "swap" and second:
        return Task(kind, pair, (thing, new), seed, rest, new, thing)
    if kind == "swap":
        other = Thing(nouns[2], color)
        return Task(kind, pair, (other, rest), seed, thing, other, rest)
    if kind == "add":
        return Task(kind, (thing,), pair, seed, None, rest, thing)
    if kind == "remove":
        gone, stays = pair[::-1] if second else pair
        return Task(kind, pair, (stays,), seed, gone, None, stays)
    if kind == "move":
        moved, stays = pair[::-1] if second else pair
        return Task(kind, pair, pair, seed, moved, moved, stays)
    if kind == "style":
        return Task(kind, (thing,), (rest,), seed, thing, rest)
    things = (thing, Thing(nouns[1], changed))
    sides = rng.permutation(2)
    boxes = {t.noun: square(rng, int(side)) for t, side in zip(things, sides, strict=True)}
    return Task(kind, (), things, seed, boxes=boxes)
