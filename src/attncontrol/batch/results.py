"""Results on disk that an interrupted run goes on with and several processes may share."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attncontrol.errors import ResultsError


def read_lines(file: Path) -> Iterator[Any]:
    """The values of a file; none if it does not exist. Lines that a killed process left half are
    skipped."""
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def append_lines(file: Path, values: Iterable[Any]) -> None:
    """In one write, which other processes cannot break; the empty line before it ends what a killed
    one left half."""
    text = "\n".join(["", *map(json.dumps, values), ""])
    with file.open("ab", buffering=0) as lines:
        lines.write(text.encode())


def same_settings(file: Path, settings: Mapping[str, Any], *, of: Path) -> None:
    """Writes the settings of the results ``of`` to ``file``. Raises ResultsError if it holds
    others."""
    text = json.dumps(settings, indent=1, default=repr)
    if file.exists() and file.read_text("utf-8") != text:
        raise ResultsError(f"{of} was made with other settings, {file}; choose another folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(text, "utf-8")
    part.replace(file)  # another process never sees half of it
