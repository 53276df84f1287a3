"""The items of a batch, painted: one call of the pipeline, or few."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from attncontrol.batch.generate import called
from attncontrol.batch.pipelines import call_of
from attncontrol.jobs.guiding import ALONE, acting, objective, sources_of
from attncontrol.jobs.item import Item
from attncontrol.maps.images import images_of
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.taken import TakenOver
from attncontrol.verbs.wish import Axis


@dataclass(frozen=True)
class Painted:
    """A picture, ``place`` among the ``size`` of its call, which held ``memory`` MiB at most."""

    item: Item
    image: Image.Image
    size: int
    place: int
    losses: tuple[float, ...]
    refinements: tuple[int, ...]
    memory: float
    maps: AttentionMaps | None


def calls(rows: Sequence[Item]) -> list[list[Item]]:
    """The rows of every call that makes those of a batch, sources first among them."""
    if rows[-1].method not in ALONE:
        return [list(rows)]
    sources, used = sources_of(rows), set[int]()
    found = []
    for number, row in enumerate(rows):
        if row.method in ALONE:
            used |= {sources[number], number}
            source = [] if sources[number] == number else [rows[sources[number]]]
            found.append([*source, row])
    if rest := [row for number, row in enumerate(rows) if number not in used]:
        found.append(rest)
    return found


def paint(
    pipe: Any, rows: Sequence[Item], keep: Sequence[Axis] = ("step", "head")
) -> Iterator[Painted]:
    """The pictures of a batch, in order, some sources more than once. ``keep`` is that of
    ``record``."""
    for of_call in calls(rows):
        yield from _painted(pipe, of_call, keep)


def _painted(pipe: Any, rows: list[Item], keep: Sequence[Axis]) -> Iterator[Painted]:
    last = rows[-1]
    size = last.steps, last.guidance, last.negative, last.height, last.width
    call = call_of(last.model, *size)
    # of the words of all rows, since those of an edit are looked for in its source too
    words = list(dict.fromkeys(word for row in rows for word in row.record or ()))
    steered, descent = objective(rows)
    made = called(
        pipe, [row.prompt for row in rows], [row.seed for row in rows],
        around=partial(acting, pipe, rows, call), words=words or None, keep=keep,
        objective=steered, descent=descent, **call,
    )  # fmt: skip
    for k, row in enumerate(rows):
        losses = tuple(step.losses[k] for step in made.steps)
        refinements = tuple(step.refinements[k] for step in made.steps)
        kept = _kept(made.maps, rows, k, made.images) if row.record and made.maps else None
        own = losses, refinements, made.memory, kept
        yield Painted(row, made.images[k], len(rows), k, *own)


def _kept(
    maps: AttentionMaps, rows: Sequence[Item], number: int, images: Sequence[Image.Image]
) -> AttentionMaps:
    """The record of a picture, and before it of its source, of its own words."""
    source, wanted = sources_of(rows)[number], rows[number].record or []
    numbers = [number] if source == number else [source, number]
    columns = [maps.labels[number].index(word) for word in wanted]
    chosen, taken = images_of(maps, numbers), None
    if len(numbers) > 1:
        found = chosen.taken or TakenOver((0, 0))
        words = {name: of[..., columns] for name, of in found.words.items()}
        taken = TakenOver((0, 0), found.cells, words)
    return chosen.replace(
        layers={name: of_layer[..., columns] for name, of_layer in chosen.layers.items()},
        spans=tuple(tuple(spans[column] for column in columns) for spans in chosen.spans),
        taken=taken,
        pictures=[images[k] for k in numbers],
    )
