"""Pictures of true scenes with the exact picture of what they are to become.

A scene is drawn twice: as it is, and with one change, ``recolour``, ``swap``, ``add``, ``remove``
or ``move`` as in ``bench.edit_suite``, on the same background with everything else in its place.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from attncontrol.bench.edit_suite.judge import judged
from attncontrol.bench.edit_suite.sources import MOVE, Case
from attncontrol.bench.edit_suite.tasks import Task, drawn
from attncontrol.bench.suites import PHOTOS
from attncontrol.sprites.scenes import (
    SIZE,
    Scene,
    Thing,
    boxed,
    caption,
    compose,
    overlap,
    place,
    render,
)
from attncontrol.sprites.scorer import detect, shows

_STREAM = 29  # of random numbers, from which nothing was drawn that settings were chosen on
_MOST_AT_ONCE = 32
_WAYS = ((MOVE, 0), (0, MOVE), (-MOVE, 0), (0, -MOVE))  # right and down
Spot = tuple[int, int, int]
"""Of a thing: the left and the top of a square, and its side, in pixels."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture, and the change that is asked of it.

    ``reference`` is what the edited picture is compared with: the exact target where there is one,
    else the picture itself. ``changed`` [height width] says which pixels may change; outside of it
    reference and picture are the same. ``case`` is what the judge of ``bench.edit_suite`` needs,
    None where no judge knows the world of the picture.
    """

    kind: str
    number: int
    source_prompt: str
    prompt: str
    picture: Image.Image
    reference: Image.Image
    changed: np.ndarray
    case: Case | None = None

    def __str__(self) -> str:
        return f"{self.source_prompt} -> {self.prompt}"


def scenes(kind: str, number: int, seed: int = 0) -> tuple[Task, Scene, Scene, tuple[int, int]]:
    """What is asked, the scene before and after, and the pixels to the right and down by which a
    thing moves; the same on every machine."""
    rng = np.random.default_rng((_STREAM, PHOTOS.index(kind), seed, number))
    task = drawn(kind, number, rng)
    ground = compose(task.source, rng).background
    while True:
        spots = place(2, rng)
        of_source, of_target = _spots(task, spots)
        move = _way(of_source, number, task) if kind == "move" else (0, 0)
        if move is not None:
            break
    moved = [
        (left + move[0], top + move[1], side) if thing == task.after else (left, top, side)
        for thing, (left, top, side) in zip(task.target, of_target, strict=True)
    ]
    return task, _scene(task.source, of_source, ground), _scene(task.target, moved, ground), move


def _spots(task: Task, spots: Sequence[Spot]) -> tuple[list[Spot], list[Spot]]:
    """Of the things of both scenes: each keeps its own, a new thing has that of the old one."""
    both = max(task.source, task.target, key=len)
    of = dict(zip(both, spots, strict=True))
    if task.before in of and task.after is not None:
        of[task.after] = of[task.before]
    return [of[thing] for thing in task.source], [of[thing] for thing in task.target]


def _way(spots: Sequence[Spot], number: int, task: Task) -> tuple[int, int] | None:
    """The first way, which changes from number to number, on which a thing stays in the picture and
    does not reach the rest."""
    at = task.source.index(task.before) if task.before else 0
    (left, top, side), rest = spots[at], spots[1 - at]
    for turn in range(len(_WAYS)):
        x, y = _WAYS[(number // 2 + turn) % len(_WAYS)]
        there = left + x, top + y, side
        inside = all(0 <= edge <= SIZE - side for edge in there[:2])
        if inside and overlap(there, rest) <= 0:
            return x, y
    return None


def _scene(things: tuple[Thing, ...], spots: Sequence[Spot], ground: tuple[int, int]) -> Scene:
    text, nouns, colors = caption(things)
    boxes = tuple(map(boxed, things, spots))
    return Scene(text, things, things, boxes, nouns, colors, ground)


def pairs(kind: str, count: int, seed: int = 0) -> list[Pair]:
    """The first ``count`` of a kind that the scorer reads right: the source shows its things, the
    exact target is judged right. Another seed has other scenes."""
    return list(itertools.islice(_readable(kind, seed, min(count, _MOST_AT_ONCE)), count))


def _readable(kind: str, seed: int, some: int) -> Iterator[Pair]:
    for start in itertools.count(0, some):
        drawings = [scenes(kind, number, seed) for number in range(start, start + some)]
        before = [Image.fromarray(render(source)[0]) for _, source, _, _ in drawings]
        after = [Image.fromarray(render(target)[0]) for _, _, target, _ in drawings]
        cases = [
            Case(task, picture, tuple(found), move)
            for (task, _, _, move), picture, found in zip(
                drawings, before, detect(before), strict=True
            )
        ]
        right = judged(cases, after)
        every = zip(itertools.count(start), cases, after, right, strict=False)
        for number, case, target, score in every:
            seen = all(shows(case.found, thing) for thing in case.task.source)
            if seen and score.shown and score.kept:
                yield _pair(number, case, target)


def _pair(number: int, case: Case, target: Image.Image) -> Pair:
    assert case.picture is not None
    task, picture = case.task, case.picture
    changed = (np.asarray(picture) != np.asarray(target)).any(-1)
    told = replace(case, spot=changed)
    return Pair(task.kind, number, task.source_prompt, task.prompt, picture, target, changed, told)
