"""Commands that are killed, or whose disk is full, at random moments; then run again, undisturbed.

A command runs in a fork of this process, where torch and the models are loaded: a run costs what
its work costs. After each disturbance every file under a final name is whole, and the same command
ends with the result of a run that nothing disturbed.

    attack = Attack(Command(["generate", "a cat", "--steps", "1"], "--out", "pictures", result))
    assert attack.kill(0.3) is None  # of its time
"""

import csv
import io
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from attncontrol.cli import app

LINES = {".jsonl", ".csv"}
"""Grow line by line: the last line may be half, and is skipped by who reads."""


@dataclass(frozen=True)
class Command:
    """A command line without its output; ``place`` is the option that names it and ``name`` what it
    is called in a folder of its own. ``result`` of that folder: what undisturbed runs have in
    common. ``before`` fills the folder."""

    arguments: Sequence[str]
    place: str
    name: str
    result: Callable[[Path], Any]
    before: Callable[[Path], None] = lambda _: None

    def line(self, folder: Path) -> list[str]:
        return [*self.arguments, self.place, str(folder / self.name)]


class Attack:
    """Disturbs a command in folders of its own in ``root``. Each method returns None, or what was
    wrong."""

    def __init__(self, command: Command, root: Path):
        self.command, self.root = command, root
        # in this process: what is loaded late is then there in all forks
        first = CliRunner().invoke(app, command.line(self._fresh("warm")))
        assert first.exit_code == 0, (first.stderr, first.exception)
        began = time.perf_counter()
        code, said = run(command, self._fresh("undisturbed"))
        self.seconds = time.perf_counter() - began
        assert code == 0, said
        self.expected = command.result(root / "undisturbed")
        assert command.result(root / "warm") == self.expected, "runs differ by themselves"

    def kill(self, moments: float | Sequence[float]) -> str | None:
        """SIGKILL after this share of the time of a whole run; of several, one after another, each
        to a run that goes on."""
        folder = self._fresh("killed")
        for moment in [moments] if isinstance(moments, float) else moments:
            child = started(self.command, folder)
            time.sleep(moment * self.seconds)
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            if half := halves(folder):
                return f"killed at {moment:.3f}: half {half}"
        return self._finished(folder, f"killed at {moments}")

    def fill(self, size: int) -> str | None:
        """No file may grow beyond ``size`` bytes, as on a disk that is full."""
        folder = self._fresh("full")
        code, said = run(self.command, folder, size)
        return self._stopped(folder, f"no file beyond {size} bytes", code, said)

    def squeeze(self, disk: Path, room: int) -> str | None:
        """In a file system of its own that has ``room`` bytes left."""
        folder = self._fresh("full", disk)
        ballast = disk / "ballast"
        with ballast.open("wb") as file:
            file.write(bytes(max(shutil.disk_usage(disk).free - room, 0)))
        code, said = run(self.command, folder)
        ballast.unlink()
        return self._stopped(folder, f"{room} bytes left", code, said)

    def _stopped(self, folder: Path, why: str, code: int, said: str) -> str | None:
        if "Traceback" in said or code not in (0, 1, 2) or (code and not said.strip()):
            return f"{why}: ended with {code}: {said[-2000:]}"
        if half := halves(folder):
            return f"{why}: half {half}"
        return self._finished(folder, why)

    def _finished(self, folder: Path, why: str) -> str | None:
        code, said = run(self.command, folder)
        if code:
            return f"{why}: the same command ends with {code}: {said[-2000:]}"
        if half := halves(folder):
            return f"{why}: half {half}"
        found = self.command.result(folder)
        return None if found == self.expected else f"{why}: another result: {found}"

    def _fresh(self, name: str, place: Path | None = None) -> Path:
        folder = (place or self.root) / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.command.before(folder)
        return folder


@dataclass(frozen=True)
class Child:
    pid: int
    pipe: int

    def wait(self) -> tuple[int, str]:
        """Exit code, or minus the signal; and all that was printed."""
        with os.fdopen(self.pipe, "rb") as pipe:
            said = pipe.read().decode("utf-8", "replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said


def started(command: Command, folder: Path, size: int | None = None) -> Child:
    """The command in a fork; what it prints goes to a pipe, which a limit of ``size`` bytes for
    every file does not touch."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = 70
    try:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        if size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        code = _called(command.line(folder))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(command: Command, folder: Path, size: int | None = None) -> tuple[int, str]:
    return started(command, folder, size).wait()


def _called(line: list[str]) -> int:
    """As the console script calls it."""
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), "utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), "utf-8", write_through=True)
    try:
        app(line, prog_name="attncontrol")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def halves(folder: Path) -> list[str]:
    """Files and folders under a final name that are not whole. Hidden ones are not final."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(
            part.startswith(".") for part in path.relative_to(folder).parts
        ):
            try:
                _read(path)
            except Exception as error:
                found.append(f"{path.name}: {error!r}")
    return found


def _read(path: Path) -> None:
    """Raises for a file that is not whole."""
    if path.suffix in (".png", ".gif"):
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        json.loads(path.read_text("utf-8"))
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118  # it is no mapping
                tensors.get_tensor(name)
    elif path.suffix == ".html":
        assert path.read_text("utf-8").rstrip().endswith("</html>")
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as arrays:
            assert arrays.testzip() is None
    elif path.suffix not in LINES:
        assert path.stat().st_size


def bytes_of(folder: Path, *names: str) -> dict[str, bytes]:
    """Of all files under final names, or those that match ``names``."""
    files = {path for name in names or ("*",) for path in folder.rglob(name) if path.is_file()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def table(file: Path, *, without: Sequence[str]) -> list[list[str]]:
    """The rows of a CSV file, sorted, without columns that no two runs have in common."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [
            [value for name, value in row.items() if name not in without]
            for row in csv.DictReader(lines)
        ]
    return sorted(rows)
