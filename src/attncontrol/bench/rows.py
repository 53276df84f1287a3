"""One line per picture in a CSV file."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


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


def read(file: Path) -> list[Row]:
    """Rows of a CSV file; none if it does not exist."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [
            Row(
                row["suite"],
                row["method"],
                row["prompt"],
                int(row["seed"]),
                **{name: float(row[name]) for name in _NUMBERS},
            )
            for row in csv.DictReader(lines)
        ]


def append(file: Path, rows: Sequence[Row]) -> None:
    new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, list(asdict(rows[0])))
        if new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
