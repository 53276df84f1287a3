"""``run``: makes the pictures of a job that its folder lacks."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from attncontrol.batch.options import require_device
from attncontrol.errors import SettingError
from attncontrol.jobs import begun, index
from attncontrol.jobs.batches import Plan
from attncontrol.jobs.deaths import Deaths
from attncontrol.jobs.job import Job
from attncontrol.jobs.made import Made
from attncontrol.jobs.places import Place, Store, is_url, place_of
from attncontrol.jobs.sheets import write_sheets
from attncontrol.jobs.state import Progress, State
from attncontrol.jobs.work import Engine, Setup, Task, here, lost
from attncontrol.verbs.about import versions
from attncontrol.writing import locked

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
    verify: bool = False,
    beside: bool = False,
    progress: Progress | None = None,
) -> list[Made]:
    """Makes what ``out`` lacks of a job, and returns all, in the order of the job.

    ``batch`` is the most pictures of one call of the pipeline; a picture is the same, bit by bit,
    however often the run is stopped and gone on with. ``workers`` are processes with a pipeline
    each; ``engine="ray"`` makes them actors of Ray. Under ``torchrun`` every rank makes its share.
    An item that cannot be made is in the index with its error, and made again with
    ``retry_failed``; ``verify`` reads every picture, and makes again those that are not what they
    were. ``progress`` is told how many of how many are done.

    ``out`` may hold a part of the job: the rest is added, in batches of its own. ``beside``: it may
    hold other items too, which stay as they are.

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
        of_folder = begun.begin(place, job, batch, setup.versions, beside)
        _fetch(place)
        table = stack.enter_context(index.opened(home / index.NAME))
        names = frozenset(item.name for item in job.items)
        state = State(place, table, of_folder.items, names, progress)
        done = state.known(setup.versions, retry_failed, verify) | (state.numbers.keys() - names)
        left = [task for task in tasks_of(of_folder.plan, done) if _is_of(task, rank)]
        stop = stack.enter_context(_interrupts())
        _do(_engine(engine, workers), setup, left, state, stop)
        if stop.is_set():
            signal.raise_signal(signal.SIGINT)  # the second one: KeyboardInterrupt
        made = state.made(job)
        if sheets:
            write_sheets(place, made)
        return made


def _do(
    engine: Engine, setup: Setup, tasks: Sequence[Task], state: State, stop: threading.Event
) -> None:
    deaths = Deaths.read(state.table.file.parent)
    left, given_up = deaths.split(tasks)
    for task in given_up:
        state.add(lost(task))
    try:
        engine(setup, deaths.watched(left) if engine is here else left, state.add, stop.is_set)
    finally:
        state.put()
        deaths.end(state.is_complete)


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


def _is_of(task: Task, rank: tuple[int, int] | None) -> bool:
    return rank is None or task.number % rank[1] == rank[0]


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
