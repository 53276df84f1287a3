"""One line per picture in a CSV file."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from attncontrol.writing import append as extend
from attncontrol.writing import put


@dataclass(frozen=True)
class Made:
    """One picture: of which suite or kind of edit, by which method, of what."""

    suite: str
    method: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Row(Made):
    """One picture."""

    present: float
    bound: float
    iou: float
    inside: float
    confidence: float
    seconds: float
    memory: float


@dataclass(frozen=True)
class Scored(Made):
    """One picture, and what scores by their names say of it."""

    scores: Mapping[str, float]
    seconds: float
    memory: float


@dataclass(frozen=True)
class Judged:
    """What an edited picture is worth; see ``bench.edit_suite``."""

    shown: float
    kept: float
    iou: float
    outside: float
    other: float
    tint: float
    confidence: float


@dataclass(frozen=True)
class EditRow(Judged, Made):
    """One edited picture; ``suite`` is the kind of edit."""

    seconds: float
    memory: float

    @property
    def both(self) -> float:
        return self.shown * self.kept


_READ: Mapping[Any, Callable[[str], Any]] = {str: str, int: int, float: float}
AnyRow = TypeVar("AnyRow", bound=Made)


def read(file: Path, kind: type[AnyRow] = Row) -> list[AnyRow]:  # type: ignore[assignment]
    """Rows of a CSV file; none if it does not exist. Lines that a killed process left half are
    skipped: a row ends with a number and the end of its line, and its picture is made again."""
    if not file.exists():
        return []
    text = file.read_bytes().decode("utf-8", "replace")
    lines = text.split("\n")[:-1]  # the last is empty, or half
    return [row for line in lines if (row := _row(line, kind)) is not None]


def _row(line: str, kind: type[AnyRow]) -> AnyRow | None:
    try:
        values = next(csv.reader([line.rstrip("\r")]), [])
        return kind(*(_READ[field.type](v) for field, v in zip(fields(kind), values, strict=True)))
    except (ValueError, csv.Error):
        return None


def kept(file: Path, rows: Sequence[Row]) -> None:
    """The rows of a file and these, which take the place of those of the same picture."""
    found = {(row.suite, row.method, row.prompt, row.seed): row for row in [*read(file), *rows]}
    put(file, _csv([asdict(row) for row in found.values()]))


def write_scored(file: Path, rows: Sequence[Scored]) -> None:
    """These alone."""
    told = [asdict(row) for row in rows]
    costs = ("seconds", "memory")
    put(file, _csv([
        {name: each[name] for name in each if name not in ("scores", *costs)}
        | each["scores"] | {name: each[name] for name in costs}
        for each in told
    ]))  # fmt: skip


def is_table(file: Path) -> bool:
    """Whether one of these is there."""
    with file.open("rb") as stream:
        return stream.read(25).startswith(b"suite,method,prompt,seed,")


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def append(file: Path, rows: Sequence[Made]) -> None:
    """In one write. What a killed process left half is ended so that no number of it is taken for a
    whole one."""
    text = io.StringIO()
    names = [field.name for row in rows[:1] for field in fields(row)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    before = file.read_bytes() if file.exists() else b""
    if not before:
        writer.writeheader()
    elif not before.endswith(b"\n"):
        text.write("...\n")
    writer.writerows(asdict(row) for row in rows)
    extend(file, text.getvalue().encode())
