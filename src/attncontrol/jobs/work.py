"""What one worker does, whichever engine runs it: makes a batch and keeps its pictures."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from attncontrol.jobs.item import Item
from attncontrol.jobs.keeping import keep
from attncontrol.jobs.made import Made
from attncontrol.jobs.making import Failed, Maker
from attncontrol.jobs.pictures import Painted
from attncontrol.jobs.places import Place, place_of


@dataclass(frozen=True)
class Setup:
    """What all batches of a run have in common; ``out`` is a folder or a URL."""

    out: str
    device: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Batch:
    """``rows`` are made together; those of them whose names are ``wanted`` are kept."""

    number: int
    rows: tuple[Item, ...]
    wanted: frozenset[str]


@dataclass(frozen=True)
class Done:
    """What became of a batch, and what the user should hear of it."""

    made: tuple[Made, ...]
    notes: tuple[str, ...] = ()


Add = Callable[[Done], None]
Stopped = Callable[[], bool]
Engine = Callable[[Setup, Sequence[Batch], Add, Stopped], None]
"""Does batches and gives what became of them to ``add``, one at a time, until it is stopped."""


class Worker:
    """Of a process; ``device`` in place of that of the setup where each has its own."""

    def __init__(self, setup: Setup, device: str | None = None):
        self.setup, self.place = setup, place_of(setup.out)
        self.maker = Maker(device or setup.device)

    def __call__(self, batch: Batch) -> Done:
        """Raises WriteError."""
        found, seconds = self.painted(batch)
        return self.kept(found, seconds)

    def painted(self, batch: Batch) -> tuple[list[Painted | Failed], float]:
        """With the seconds that each took."""
        began = time.perf_counter()
        found = list(self.maker.make(batch.rows, set(batch.wanted)))
        return found, (time.perf_counter() - began) / max(1, len(found))

    def kept(self, found: Sequence[Painted | Failed], seconds: float) -> Done:
        """Writes pictures. Raises WriteError."""
        made = tuple(_kept(self.place, each, self.setup, seconds) for each in found)
        notes, self.maker.notes = tuple(self.maker.notes), []
        return Done(made, notes)


def _kept(place: Place, found: Painted | Failed, setup: Setup, seconds: float) -> Made:
    if isinstance(found, Failed):
        return Made(found.item, seconds=seconds, error=found.error)
    return keep(place, found, setup.versions, seconds)


def here(setup: Setup, batches: Sequence[Batch], add: Add, stopped: Stopped) -> None:
    """In this process; while a batch is made, a thread keeps the one before it."""
    worker = Worker(setup)

    def keep_and_add(found: Sequence[Painted | Failed], seconds: float) -> None:
        add(worker.kept(found, seconds))

    with ThreadPoolExecutor(1, "attncontrol-keeps") as keeper:
        last: Future[None] | None = None
        for batch in batches:
            if stopped():
                break
            found, seconds = worker.painted(batch)
            if last is not None:
                last.result()  # raises what went wrong, and no more than two batches are held
            last = keeper.submit(keep_and_add, found, seconds)
        if last is not None:
            last.result()


def left_of(batch: Batch, made: Sequence[Made]) -> Batch:
    """Without what was made of it."""
    return replace(batch, wanted=batch.wanted - {each.item.name for each in made})
