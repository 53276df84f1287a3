"""The items of a batch, painted: one call of the pipeline, or few."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from attncontrol.batch.pipelines import call_of
from attncontrol.jobs.guiding import ALONE, enter, sources_of, steering
from attncontrol.jobs.item import Item
from attncontrol.maps.images import images_of
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.taken import TakenOver
from attncontrol.verbs.record import record


@dataclass(frozen=True)
class Painted:
    """A picture, ``place`` among the ``size`` of its call."""

    item: Item
    image: Image.Image
    size: int
    place: int
    losses: tuple[float, ...]
    refinements: tuple[int, ...]
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


def paint(pipe: Any, rows: Sequence[Item]) -> Iterator[Painted]:
    """The pictures of a batch, in order, some sources more than once."""
    for of_call in calls(rows):
        yield from _painted(pipe, of_call)


def _painted(pipe: Any, rows: list[Item]) -> Iterator[Painted]:
    last = rows[-1]
    size = last.steps, last.guidance, last.negative, last.height, last.width
    call = call_of(last.model, *size)
    generators = [torch.Generator("cpu").manual_seed(row.seed) for row in rows]
    with ExitStack() as stack:
        enter(stack, pipe, rows, call)
        maps = _recording(stack, pipe, rows)
        trace = steering(stack, pipe, rows)
        negative = call.get("negative_prompt")
        repeated = {"negative_prompt": [negative] * len(rows)} if negative else {}
        prompts = [row.prompt for row in rows]
        images = pipe(prompts, generator=generators, **(call | repeated)).images
    steps = trace.steps if trace is not None else []
    for k, row in enumerate(rows):
        losses = tuple(step.losses[k] for step in steps)
        refinements = tuple(step.refinements[k] for step in steps)
        kept = _kept(maps, rows, k, images) if row.record and maps is not None else None
        yield Painted(row, images[k], len(rows), k, losses, refinements, kept)


def _recording(stack: ExitStack, pipe: Any, rows: Sequence[Item]) -> AttentionMaps | None:
    """Of the words of all rows, since those of an edit are looked for in its source too."""
    words = list(dict.fromkeys(word for row in rows for word in row.record or ()))
    return stack.enter_context(record(pipe, words, keep=("step", "head"))) if words else None


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
