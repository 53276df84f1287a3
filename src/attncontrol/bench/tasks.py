"""The tasks of every suite: prompts, and boxes where the suite has them."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from attncontrol.attention.regions import Box
from attncontrol.bench.prompts import benchmark_prompts, things_of
from attncontrol.sprites.scenes import COLORS, NOUNS, Thing, caption

_MORE = {"triples": 1, "attributes": 1, "four": 2}  # nouns than the prompt has


@dataclass(frozen=True)
class Task:
    """A prompt and, in the layout suite, the box of every noun."""

    prompt: str
    boxes: Mapping[str, Box]


def tasks(suite: str, every: int = 1) -> list[Task]:
    """The tasks of a suite, every n-th of them; the same on every machine."""
    prompts = itertools.chain.from_iterable(benchmark_prompts().values())
    return [_task(suite, number, prompt) for number, prompt in enumerate(prompts)][::every]


def _task(suite: str, number: int, prompt: str) -> Task:
    rng = np.random.default_rng((11, number))
    nouns = [thing.noun for thing in things_of(prompt)]
    if suite == "pairs":
        return Task(prompt, {})
    for _ in range(_MORE.get(suite, 0)):
        nouns.append(str(rng.choice([noun for noun in NOUNS if noun not in nouns])))
    if suite in ("triples", "four"):
        return Task(_caption(nouns), {})
    if suite in ("colors", "attributes"):
        colors = rng.choice(list(COLORS), 2, replace=False)
        return Task(_caption(nouns, itertools.chain(map(str, colors), itertools.repeat(None))), {})
    sides = rng.permutation(2)
    boxes = {noun: square(rng, int(side)) for noun, side in zip(nouns, sides, strict=True)}
    return Task(_caption(nouns), boxes)


def _caption(nouns: Iterable[str], colors: Iterable[str | None] = itertools.repeat(None)) -> str:
    return caption(tuple(map(Thing, nouns, colors)))[0]


def square(rng: np.random.Generator, side: int) -> Box:
    """A square in the left or the right half."""
    length = rng.uniform(0.36, 0.48)
    left, top = rng.uniform(0, 0.5 - length) + 0.5 * side, rng.uniform(0, 1 - length)
    first, second, third, fourth = np.round([left, top, left + length, top + length], 3).tolist()
    return first, second, third, fourth
