"""Source pictures that show what their prompts say; made once, kept in files."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attncontrol.bench.edit_suite.tasks import Task, tasks
from attncontrol.bench.rows import Made, append, read
from attncontrol.export.folder import save
from attncontrol.export.names import name_of
from attncontrol.sprites.scenes import SIZE
from attncontrol.sprites.scorer import Detection, detect, shows

MOVE = 32  # pixels
_TRIES = 40  # per source that is wanted
_WAYS = ((MOVE, 0), (0, MOVE), (-MOVE, 0), (0, -MOVE))  # right and down


@dataclass(frozen=True, eq=False)
class Case:
    """A task with its source picture and what that shows; both empty without a source. ``move``
    are the pixels to the right and down by which a thing moves, ``spot`` [height width] those in
    which a new thing is to be, if it is told where."""

    task: Task
    picture: Image.Image | None = None
    found: tuple[Detection, ...] = ()
    move: tuple[int, int] = (0, 0)
    spot: np.ndarray | None = None


@dataclass(frozen=True)
class Tried(Made):
    """A source picture; ``shown`` says whether all of its things are there."""

    shown: float


def cases(
    pipe: Any,
    kind: str,
    count: int,
    folder: Path,
    *,
    batch: int = 8,
    progress: Callable[[Iterable[Any], str], Iterable[Any]],
    **call: Any,
) -> list[Case]:
    """The first ``count`` tasks of a kind whose source shows all of its things and nothing that
    would be new. Sources are kept in ``folder``, whose ``sources.csv`` says of all that were tried
    whether they are."""
    if kind == "regions":
        return [Case(task) for task in itertools.islice(tasks(kind), count)]
    tried = {(row.prompt, row.seed): row.shown for row in read(folder / "sources.csv", Tried)}

    def fitting() -> Iterator[Case]:
        every = itertools.islice(tasks(kind), _TRIES * count)
        while some := list(itertools.islice(every, batch)):
            tried.update(_made(pipe, [t for t in some if _key(t) not in tried], folder, call))
            yield from _fitting([task for task in some if tried[_key(task)]], folder)

    return list(progress(itertools.islice(fitting(), count), f"{kind}: sources"))


def draw(
    pipe: Any, jobs: Sequence[tuple[str, int]], call: dict[str, Any], **more: Any
) -> list[Image.Image]:
    """Pictures of (prompt, seed) in one call."""
    generators = [torch.Generator().manual_seed(seed) for _, seed in jobs]
    prompts = [prompt for prompt, _ in jobs]
    made: list[Image.Image] = pipe(prompts, generator=generators, **call, **more).images
    return made


def _key(task: Task) -> tuple[str, int]:
    return task.source_prompt, task.seed


def _file(task: Task, folder: Path) -> Path:
    return folder / name_of(task.source_prompt, "source", task.seed)


def _made(
    pipe: Any, missing: Sequence[Task], folder: Path, call: dict[str, Any]
) -> dict[tuple[str, int], float]:
    """Which source pictures of these tasks, made now, show all of their things."""
    if not missing:
        return {}
    pictures, rows = draw(pipe, [_key(task) for task in missing], call), []
    for task, picture, found in zip(missing, pictures, detect(pictures), strict=True):
        shown = all(shows(found, thing) for thing in task.source)
        if shown:
            about = {"prompt": task.source_prompt, "seed": task.seed}
            save(picture, _file(task, folder), about)
        rows.append(Tried("sources", "plain", *_key(task), float(shown)))
    append(folder / "sources.csv", rows)  # behind their pictures
    return {(row.prompt, row.seed): row.shown for row in rows}


def _fitting(those: Sequence[Task], folder: Path) -> list[Case]:
    if not those:
        return []
    pictures = [Image.open(_file(task, folder)).convert("RGB") for task in those]
    fitting = []
    for task, picture, found in zip(those, pictures, detect(pictures), strict=True):
        new = {thing.noun for thing in task.target} - {thing.noun for thing in task.source}
        move = _move(task, found) if task.kind == "move" else (0, 0)
        if move is not None and not new & {each.noun for each in found}:
            fitting.append(Case(task, picture, tuple(found), move))
    return fitting


def _move(task: Task, found: Sequence[Detection]) -> tuple[int, int] | None:
    """The first way, which changes from task to task, on which a thing stays in the picture and
    does not reach the rest."""
    moved, rest = mask(found, task.before), mask(found, task.rest)
    for number in range(len(_WAYS)):
        x, y = _WAYS[(task.seed + number) % len(_WAYS)]
        there = shifted(moved, (x, y))
        if there.sum() == moved.sum() and not (there & rest).any():
            return x, y
    return None


def mask(found: Sequence[Detection], thing: Any) -> np.ndarray:
    """Where the noun of a thing is [height width]; nowhere without one, or if it was not found."""
    masks = [each.mask for each in found if thing is not None and each.noun == thing.noun]
    return masks[0] if masks else np.zeros((SIZE, SIZE), bool)


def shifted(where: np.ndarray, move: tuple[int, int]) -> np.ndarray:
    """A mask, so many pixels to the right and down; what leaves the picture is lost."""
    (height, width), (x, y) = where.shape, move
    result = np.zeros_like(where)
    kept = where[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
    result[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = kept
    return result
