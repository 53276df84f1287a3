"""One line per picture in a CSV file."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from attncontrol.writing import append as extend


@dataclass(frozen=True)
class Row:
    """One picture."""

    suite: str
    method: str
    prompt: str
    seed: int
    present: float
    bound: float
    iou: float
    inside: float
    confidence: float
    seconds: float
    memory: float


_NUMBERS = ("present", "bound", "iou", "inside", "confidence", "seconds", "memory")


_FIELDS = [field.name for field in fields(Row)]


def read(file: Path) -> list[Row]:
    """Rows of a CSV file; none if it does not exist. Lines that a killed process left half are
    skipped: a row ends with a number and the end of its line, and its picture is made again."""
    if not file.exists():
        return []
    text = file.read_bytes().decode("utf-8", "replace")
    lines = text.split("\n")[:-1]  # the last is empty, or half
    return [row for row in map(_row, lines) if row is not None]


def _row(line: str) -> Row | None:
    try:
        values = dict(zip(_FIELDS, next(csv.reader([line.rstrip("\r")]), []), strict=False))
        numbers = {name: float(values[name]) for name in _NUMBERS}
        return Row(values["suite"], values["method"], values["prompt"], int(values["seed"]),
                   **numbers)  # fmt: skip
    except (KeyError, ValueError, csv.Error):
        return None


def append(file: Path, rows: Sequence[Row]) -> None:
    """In one write. What a killed process left half is ended so that no number of it is taken for a
    whole one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n")
    before = file.read_bytes() if file.exists() else b""
    if not before:
        writer.writeheader()
    elif not before.endswith(b"\n"):
        text.write("...\n")
    writer.writerows(asdict(row) for row in rows)
    extend(file, text.getvalue().encode())
