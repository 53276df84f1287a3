"""What of a job is done, as a run goes on."""

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

from attncontrol.jobs import index
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.keeping import PICTURES, RECORDS, adopted, is_there, is_whole
from attncontrol.jobs.made import Made
from attncontrol.jobs.places import Place, Store
from attncontrol.jobs.work import Done

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""
_PUT_EVERY = 60.0  # seconds, for an index that is kept elsewhere
_LOG = logging.getLogger(__name__)


@dataclass
class State:
    """``items`` are those of the folder, ``asked`` the names of those of the job."""

    place: Place
    table: index.Index
    items: Sequence[Item]
    asked: Set[str]
    progress: Progress | None
    done: int = 0
    last: float = field(default_factory=time.monotonic)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        return {item.name: number for number, item in enumerate(self.items)}

    @property
    def is_complete(self) -> bool:
        return self.done == len(self.asked)

    def known(
        self, versions: Mapping[str, str], retry_failed: bool = False, verify: bool = False
    ) -> set[str]:
        """The names of what is done. Rows without whole files are forgotten, whole files without
        rows get one."""
        rows = index.rows_of(self.place)
        names = {folder: self.place.names(folder) for folder in (PICTURES, RECORDS)}
        ours = {name: made for name, (_, made) in rows.items() if name in self.numbers}
        there = {
            name
            for name, made in ours.items()
            if made.error is None
            and is_there(self.place, made, names)
            and not (verify and name in self.asked and not is_whole(self.place, made))
        }
        failed = {name for name, made in ours.items() if made.error is not None}
        _tell_broken(ours.keys() - there - failed)
        whole = there if retry_failed else there | failed
        self.table.forget(rows.keys() - whole)
        found: list[index.Row] = []
        for name, number in self.numbers.items():
            if name not in whole and f"{name}.png" in names[PICTURES]:
                made = adopted(self.place, self.items[number], versions)
                found += [] if made is None else [(number, made)]
        self.table.add(found)
        done = whole | {made.item.name for _, made in found}
        self.tell(len(done & self.asked))
        return done

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
            self.progress(self.done, len(self.asked))

    def put(self) -> None:
        """The index to where the pictures are."""
        self.last = time.monotonic()
        if isinstance(self.place, Store):
            name = self.table.file.relative_to(self.place.local).as_posix()
            self.place.put(name, self.table.file.read_bytes())

    def made(self, job: Job) -> list[Made]:
        """What became of a job, in its order."""
        rows = index.rows_of(self.place)
        return [rows[item.name][1] for item in job.items if item.name in rows]


def _tell_broken(names: Set[str]) -> None:
    if names:
        count = f"{len(names)} picture{'s' * (len(names) > 1)}"
        _LOG.warning("%s of the index not whole, such as %s: put right", count, min(names))
