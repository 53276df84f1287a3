"""The pictures that a form asks for, made, with a look at every step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any

from torch import Tensor

from attncontrol.app.asked import SOURCE, UNEDITED, Asked
from attncontrol.batch.pipelines import call_of, opened
from attncontrol.jobs.batches import plan
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.pictures import Painted, calls, paint
from attncontrol.running.observers import observe

TOGETHER = 4
"""Pictures of a call."""
pipeline = lru_cache(1)(opened)
"""One is held: of the model, device and dtype that were used last."""
Told = Callable[[float, str], None]
"""Gets how much is done, 0 to 1, and what is made."""


class _Stopped(Exception):  # noqa: N818  # a signal
    pass


@dataclass(frozen=True)
class Shown:
    """A picture of an arm and a seed, the maps [height width] of its words, and losses by step."""

    arm: str
    item: Item
    image: Any
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    cells: Tensor | None = None
    """Of an edit, True where they are those of the source."""


def make(
    pipe: Any, asked: Asked, tell: Told, stopped: Callable[[], bool]
) -> dict[int, list[Shown]] | None:
    """Of every seed its arms; None if ``stopped`` said so, which is asked before every step. Raises
    what the pipeline and what acts on it raise. However it ends, the pipeline is as before."""
    batches = plan(Job.of(asked.items), TOGETHER)
    found: dict[str, Painted] = {}
    try:
        for number, batch in enumerate(batches):
            steps = _steps(batch.items)
            what = f"{batch.items[-1].method}, call {number + 1} of {len(batches)}"

            def seen(step: int, at: int = number, of: int = steps, said: str = what) -> None:
                if stopped():
                    raise _Stopped
                tell((at + min(step / of, 1)) / len(batches), f"{said}, step {step}")

            with _watched(pipe, seen):
                painted = list(paint(pipe, batch.items, keep=()))
            found |= {each.item.mark: each for each in painted}
    except _Stopped:
        return None
    return {
        seed: [_shown(arm, items[k], asked.last[k], found) for arm, items in asked.arms.items()]
        for k, seed in enumerate(asked.seeds)
    }


def _steps(rows: Sequence[Item]) -> int:
    """Of all calls of a batch; what is removed or moved is looked for by one more."""
    last = rows[-1]
    of_call = int(call_of(last.model, last.steps)["num_inference_steps"])
    return of_call * len(calls(rows)) * (2 if last.remove or last.move else 1)


@contextmanager
def _watched(pipe: Any, seen: Callable[[int], None]) -> Iterator[None]:
    """Calls ``seen`` with the number of every step, of all calls together, before it ends."""
    numbers = count(1)
    leave = observe(pipe.scheduler, "step", lambda _: seen(next(numbers)))
    try:
        yield
    finally:
        leave()


def _shown(arm: str, item: Item, last: Item, found: Mapping[str, Painted]) -> Shown:
    """Maps of a source are in the record of its edit."""
    own, record, image, cells = found[item.mark], found[item.mark].maps, 0, None
    if last.source is not None and arm != UNEDITED:
        record, image = found[last.mark].maps, 0 if arm == SOURCE else 1
    if record is None:
        return Shown(arm, item, own.image, losses=own.losses)
    if image and record.taken is not None and record.taken.cells is not None:
        of_steps = record.taken.cells[image].bool()
        cells = next((each for each in of_steps.flip(0) if each.any()), None)
    words = zip(record.labels[image], record.mean()[image].movedim(-1, 0), strict=True)
    maps = {word: one for word, one in words if not one.isnan().all()}
    return Shown(arm, item, own.image, maps, own.losses, cells)
