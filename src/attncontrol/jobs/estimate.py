"""How long a job takes, and how much room: from pictures of its kinds that are there, or are made
to find out."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from attncontrol.errors import ResultsError
from attncontrol.jobs import index
from attncontrol.jobs.batches import plan
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.made import Made
from attncontrol.jobs.work import Setup, Task, Worker
from attncontrol.verbs.about import versions

_MOST = 50  # pictures of a kind whose files are looked at
_ROW = 1000  # bytes in the index, about


@dataclass(frozen=True)
class Estimate:
    """``seconds`` and ``bytes`` of the pictures of a job that are ``left`` to be made, by one
    worker, from ``measured`` pictures."""

    seconds: float
    bytes: int
    left: int
    measured: int


def of_folder(job: Job, folder: Path, retry_failed: bool = False) -> Estimate | None:
    """From what an earlier run, of any job, left in a folder; None if it made nothing of a kind
    that this job has. Pictures found there without a row are done, but nothing is known of how
    long they took."""
    if not (folder / index.NAME).is_file():
        return None
    rows = index.read(folder)
    done = {each.item.mark for each in rows if each.error is None or not retry_failed}
    made = [each for each in rows if each.error is None and each.seconds > 0]
    return _estimate([item for item in job.items if item.mark not in done], made, folder)


def of_pictures(job: Job, device: str = "cpu") -> Estimate:
    """Makes up to two pictures of every kind one by one, the first to warm up. Raises ResultsError
    if one cannot be made."""
    kinds = defaultdict[Any, list[tuple[Item, ...]]](list)
    for batch in plan(job, 1):
        several = kinds[_kind(batch.items[-1])]
        if len(several) < 2:
            several.append(batch.items)
    made = []
    with TemporaryDirectory() as folder:
        worker = Worker(Setup(folder, device, versions()))
        for several in kinds.values():
            for rows in several:
                began = time.perf_counter()
                task = Task(0, rows, frozenset({rows[-1].name}))
                (one,) = worker.kept(worker.painted(task)).made
                if one.error is not None:
                    raise ResultsError(f"{one.item.prompt!r} cannot be made: {one.error}")
                seconds = time.perf_counter() - began
                last = Made(one.item, one.file, one.pixels, one.record, seconds=seconds)
            made.append(last)
        found = _estimate(job.items, made, Path(folder))
    if found is None:
        raise ResultsError("the job has no picture")
    return found


def _estimate(left: Sequence[Item], made: Sequence[Made], folder: Path) -> Estimate | None:
    known = defaultdict[Any, list[Made]](list)
    for each in made:
        known[_kind(each.item)].append(each)
    counts = Counter(map(_kind, left))
    if left and not counts.keys() & known.keys():
        return None
    seconds = {kind: fmean(each.seconds for each in some) for kind, some in known.items()}
    sizes = {kind: fmean(_size(folder, each) for each in some[:_MOST])
             for kind, some in known.items()}  # fmt: skip
    return Estimate(_total(counts, seconds), round(_total(counts, sizes)), len(left), len(made))


def _total(counts: Mapping[Any, int], of_kind: Mapping[Any, float]) -> float:
    """Of a kind that is not known the mean of the others."""
    usual = fmean(of_kind.values()) if of_kind else 0.0
    return sum((count * of_kind.get(kind, usual) for kind, count in counts.items()), 0.0)


def _kind(item: Item) -> tuple[Any, ...]:
    """What decides how long a picture takes."""
    size = item.model, item.dtype, item.height, item.width, item.steps, item.guidance
    return (*size, item.method, bool(item.heads), bool(item.record), len(item.lora))


def _size(folder: Path, made: Made) -> int:
    names: Iterable[str | None] = (made.file, made.file and f"{made.file[:-3]}json", made.record)
    files = [folder / name for name in names if name is not None]
    return sum(file.stat().st_size for file in files if file.is_file()) + _ROW
