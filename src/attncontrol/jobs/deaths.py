"""A run whose process is killed for lack of memory would die of the same batch whenever it goes on.
Linux counts such kills: a batch during which one happened is halved the next time. Of all other
deaths nothing is remembered, so that pictures stay as they are however often a run is stopped."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attncontrol.jobs.work import Task, halves
from attncontrol.writing import put, remove

NAME = ".begun.json"
_BOOT, _COUNTS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/vmstat")


def kills() -> list[str]:
    """Of this boot of the machine: how many processes were killed for memory. Empty where that is
    not known."""
    try:
        found = re.search(r"^oom_kill (\d+)$", _COUNTS.read_text("ascii"), re.MULTILINE)
        return [_BOOT.read_text("ascii").strip(), found[1]] if found else []
    except OSError:
        return []


@dataclass
class Deaths:
    """``killed``: the names of the rows of calls that died."""

    file: Path
    killed: list[list[str]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> "Deaths":
        """What the last run of a folder died of, with all before it."""
        file = folder / NAME
        try:
            told = json.loads(file.read_bytes())
            killed, begun, before = told["killed"], told["begun"], told["kills"]
        except (OSError, ValueError, LookupError, TypeError):
            return cls(file)
        now = kills()
        same_boot = bool(now) and before[:1] == now[:1]
        return cls(file, [*killed, begun] if same_boot and before != now and begun else killed)

    def split(self, tasks: Iterable[Task]) -> tuple[list[Task], list[Task]]:
        """Tasks without those that died, which are in parts; single items that are given up."""
        left, given_up = list(tasks)[::-1], list[Task]()
        found = []
        while left:
            task = left.pop()
            if [*task.names] not in self.killed:
                found.append(task)
            elif parts := halves(task):
                left += reversed(parts)
            else:
                given_up.append(task)
        return found, given_up

    def watched(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Notes each before it begins. Raises WriteError."""
        for task in tasks:
            self._write([*task.names])
            yield task

    def end(self, complete: bool) -> None:
        """The process ends by itself."""
        if complete or not self.killed:
            remove([self.file])
        else:
            self._write([])

    def _write(self, begun: list[str]) -> None:
        told = {"killed": self.killed, "begun": begun, "kills": kills()}
        put(self.file, json.dumps(told).encode())
