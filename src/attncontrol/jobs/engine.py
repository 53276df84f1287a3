"""``run``: makes the pictures of a job that its folder lacks."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from attncontrol.batch.options import require_device
from attncontrol.errors import SettingError
from attncontrol.jobs import begun, index
from attncontrol.jobs.batches import Plan
from attncontrol.jobs.deaths import Deaths
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.keeping import PICTURES, RECORDS, adopted, is_there
from attncontrol.jobs.made import Made
from attncontrol.jobs.places import Place, Store, is_url, place_of
from attncontrol.jobs.sheets import write_sheets
from attncontrol.jobs.work import Done, Engine, Setup, Task, here, lost
from attncontrol.verbs.about import versions
from attncontrol.writing import locked

Progress = Callable[[int, int], None]
_PUT_EVERY = 60.0  # seconds, for an index that is kept elsewhere
ENGINES = ("local", "ray")


def run(
    job: Job,
    out: Path | str,
    *,
    batch: int = 8,
    device: str = "cpu",
    workers: int = 1,
    engine: str = "local",
    sheets: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> list[Made]:
    """Makes what ``out`` lacks of a job, and returns all, in the order of the job.

    ``batch`` is the most pictures of one call of the pipeline; a picture is the same, bit by bit,
    however often the run is stopped and gone on with. ``workers`` are processes with a pipeline
    each; ``engine="ray"`` makes them actors of Ray. Under ``torchrun`` every rank makes its share.
    An item that cannot be made is in the index with its error, and made again with
    ``retry_failed``. ``progress`` is told how many of how many are done.

    Raises SettingError, ResultsError where ``out`` holds another job or one of other versions,
    WriteError where it cannot be written, and KeyboardInterrupt after Ctrl-C: once, the batch is
    ended first.
    """
    out, device = str(out), _own(device)
    require_device(device)
    if out.startswith("memory:") and (workers > 1 or engine != "local"):
        raise SettingError(f"{out} is memory of this process: other workers cannot write there")
    place, rank = place_of(out), _rank()
    home = place.local if rank is None else place.local / index.RANKS / str(rank[0])
    setup = Setup(out if is_url(out) else str(Path(out).resolve()), device, versions())
    with ExitStack() as stack:
        stack.enter_context(locked(home))
        plan = begun.begin(place, job, batch, setup.versions)
        _fetch(place)
        table = stack.enter_context(index.opened(home / index.NAME))
        run = _Run(place, table, {item.name: k for k, item in enumerate(job.items)}, progress)
        done = run.known(job.items, setup.versions, retry_failed)
        left = [task for task in tasks_of(plan, done) if rank is None or _is_of(task, rank)]
        run.tell(len(done))
        stop = stack.enter_context(_interrupts())
        deaths = Deaths.read(home)
        left, given_up = deaths.split(left)
        for task in given_up:
            run.add(lost(task))
        do = _engine(engine, workers)
        try:
            do(setup, deaths.watched(left) if do is here else left, run.add, stop.is_set)
        finally:
            run.put()
            deaths.end(run.done == len(job))
        if stop.is_set():
            signal.raise_signal(signal.SIGINT)  # the second one: KeyboardInterrupt
        made = index.joined(place)
        if sheets:
            write_sheets(place, made)
        return made


@dataclass
class _Run:
    """``numbers``: of the items in the job, by their names."""

    place: Place
    table: index.Index
    numbers: Mapping[str, int]
    progress: Progress | None
    done: int = 0
    last: float = field(default_factory=time.monotonic)

    def known(
        self, items: Sequence[Item], versions: Mapping[str, str], retry_failed: bool
    ) -> set[str]:
        """The names of what is done. Rows without whole files are forgotten, whole files without
        rows get one."""
        rows = index.rows_of(self.place)
        names = {folder: self.place.names(folder) for folder in (PICTURES, RECORDS)}
        whole = {
            name
            for name, (_, made) in rows.items()
            if name in self.numbers
            and (not retry_failed if made.error else is_there(self.place, made, names))
        }
        self.table.forget(rows.keys() - whole)
        found: list[index.Row] = []
        for number, item in enumerate(items):
            if item.name not in whole and f"{item.name}.png" in names[PICTURES]:
                made = adopted(self.place, item, versions)
                found += [] if made is None else [(number, made)]
        self.table.add(found)
        return whole | {made.item.name for _, made in found}

    def add(self, done: Done) -> None:
        """What became of a batch."""
        self.table.add([(self.numbers[made.item.name], made) for made in done.made])
        for note in done.notes:
            warnings.warn(note, stacklevel=2)
        self.tell(len(done.made))
        if time.monotonic() - self.last > _PUT_EVERY:
            self.put()

    def tell(self, more: int) -> None:
        self.done += more
        if self.progress is not None:
            self.progress(self.done, len(self.numbers))

    def put(self) -> None:
        """The index to where the pictures are."""
        self.last = time.monotonic()
        if isinstance(self.place, Store):
            name = self.table.file.relative_to(self.place.local).as_posix()
            self.place.put(name, self.table.file.read_bytes())


def tasks_of(plan: Plan, done: Set[str]) -> list[Task]:
    """The batches of which something is missing, whole, so that a picture is as it always was."""
    found = []
    for number, batch in enumerate(plan):
        wanted = frozenset(row.name for row in batch.own) - done
        if wanted:
            found.append(Task(number, batch.items, wanted))
    return found


def _engine(name: str, workers: int) -> Engine:
    if name == "ray":
        from attncontrol.jobs.on_ray import on_ray

        return on_ray(workers)
    if name != "local":
        raise SettingError(f"engine {name!r}: choose from {', '.join(ENGINES)}")
    if workers == 1:
        return here
    from attncontrol.jobs.processes import processes

    return processes(workers)


def _fetch(place: Place) -> None:
    """The index of a place that is elsewhere."""
    if isinstance(place, Store):
        index.fetch(place)


def _rank() -> tuple[int, int] | None:
    """This process among those of torchrun or accelerate; None if it is the only one. Raises
    SettingError."""
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or size is None or size == "1":
        return None
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise SettingError(f"RANK={rank} and WORLD_SIZE={size} are no rank and its number of ranks")
    return int(rank), int(size)


def _own(device: str) -> str:
    """The GPU of this process of torchrun."""
    number = os.environ.get("LOCAL_RANK", "")
    return f"cuda:{number}" if device == "cuda" and number.isdecimal() else device


def _is_of(task: Task, rank: tuple[int, int]) -> bool:
    return task.number % rank[1] == rank[0]


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C; the second one raises KeyboardInterrupt."""
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    with suppress(ValueError):  # another thread than the main one gets no signals
        before = signal.signal(signal.SIGINT, asked)
        try:
            yield stop
        finally:
            signal.signal(signal.SIGINT, before)
        return
    yield stop
