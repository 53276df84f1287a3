"""What one worker does, whichever engine runs it: makes a batch and keeps its pictures."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from attncontrol.jobs.item import Item
from attncontrol.jobs.keeping import keep
from attncontrol.jobs.made import Made
from attncontrol.jobs.making import Failed, Maker, rows_of, units_of
from attncontrol.jobs.pictures import Painted
from attncontrol.jobs.places import Place, place_of

_DIED = (
    "RuntimeError: the process that made it was killed, again and again; if it was for memory, a "
    "smaller picture may help"
)


@dataclass(frozen=True)
class Setup:
    """What all tasks of a run have in common; ``out`` is a folder or a URL."""

    out: str
    device: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Task:
    """A batch of the plan by its number: ``rows`` are made together, and those of them are kept
    whose names are ``wanted``."""

    number: int
    rows: tuple[Item, ...]
    wanted: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)


@dataclass(frozen=True)
class Done:
    """What became of a task, and what the user should hear of it."""

    made: tuple[Made, ...]
    notes: tuple[str, ...] = ()


Add = Callable[[Done], None]
Stopped = Callable[[], bool]
Engine = Callable[[Setup, Iterable[Task], Add, Stopped], None]
"""Does tasks and gives what became of them to ``add``, one at a time, until it is stopped."""


class Worker:
    """Of a process; ``device`` in place of that of the setup where each has its own."""

    def __init__(self, setup: Setup, device: str | None = None):
        self.setup, self.place = setup, place_of(setup.out)
        self.maker = Maker(device or setup.device)

    def painted(self, task: Task) -> "Result":
        """Nothing of it is written yet."""
        began = time.perf_counter()
        found = list(self.maker.make(task.rows, set(task.wanted)))
        seconds = (time.perf_counter() - began) / max(1, len(found))
        notes, self.maker.notes = tuple(self.maker.notes), []
        return Result(found, seconds, notes)

    def kept(self, result: "Result") -> Done:
        """Writes pictures. Raises WriteError."""
        made = [_kept(self.place, each, self.setup, result.seconds) for each in result.found]
        return Done(tuple(made), result.notes)


@dataclass(frozen=True)
class Result:
    """Of a task; ``seconds`` are those of each picture."""

    found: Sequence[Painted | Failed]
    seconds: float
    notes: tuple[str, ...]


def _kept(place: Place, found: Painted | Failed, setup: Setup, seconds: float) -> Made:
    if isinstance(found, Failed):
        return Made(found.item, seconds=seconds, error=found.error)
    return keep(place, found, setup.versions, seconds)


def here(setup: Setup, tasks: Iterable[Task], add: Add, stopped: Stopped) -> None:
    """In this process."""
    overlapped(Worker(setup), tasks, add, stopped)


def overlapped(worker: Worker, tasks: Iterable[Task], add: Add, stopped: Stopped) -> None:
    """While a task is done, a thread keeps the one before it."""

    def keep_and_add(result: Result) -> None:
        add(worker.kept(result))

    with ThreadPoolExecutor(1, "attncontrol-keeps") as keeper:
        last: Future[None] | None = None
        for task in tasks:
            if stopped():
                break
            result = worker.painted(task)
            if last is not None:
                last.result()  # raises what went wrong, and no more than two batches are held
            last = keeper.submit(keep_and_add, result)
        if last is not None:
            last.result()


def halves(task: Task) -> tuple[Task, ...]:
    """What is tried in place of a batch whose process died; none of a single item, which is to
    blame."""
    units = units_of(task.rows)
    half = (len(units) + 1) // 2
    parts = [rows_of(part) for part in (units[:half], units[half:]) if len(units) > 1]
    wanted = set(task.wanted)
    found = []
    for rows in parts:
        own = frozenset(wanted & {row.name for row in rows})  # a shared source is of the first
        wanted -= own
        found += [Task(task.number, tuple(rows), own)] if own else []
    return tuple(found)


def lost(task: Task) -> Done:
    rows = [row for row in task.rows if row.name in task.wanted]
    return Done(tuple(Made(row, error=_DIED) for row in rows))
