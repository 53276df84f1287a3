"""A row for every picture, as CSV and as Parquet."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from attncontrol.errors import PackageError
from attncontrol.report.arms import said, settings_of
from attncontrol.report.rows import Row
from attncontrol.writing import put, whole

FIRST = (
    "name", "prompt", "seed", "arm", "method", "model", "settings", "source", "file", "record",
    "error", "seconds", "loss", "refinements",
)  # fmt: skip
"""Columns before those of the scores: ``loss`` is the last one, ``refinements`` their sum."""
_NUMBERS = {"seconds": "float64", "loss": "float64", "refinements": "int64", "seed": "uint64"}
_MARK = b"attncontrol"
# also behind other separators than ours; the last four are wide forms of the first
_FORMULA = re.compile("(?:^|(?<=[;\t\n|]))(?=\\s*[=+@\uff1d\uff0b\uff0d\uff20-])")


def columns(rows: Sequence[Row], scores: Iterable[str]) -> dict[str, list[Any]]:
    """Values of every column; what is not there is None."""
    values = [_first(row) for row in rows]
    table: dict[str, list[Any]] = {name: [each[name] for each in values] for name in FIRST}
    for score in scores:
        numbers = [row.scores.get(score) for row in rows]
        table[column_of(score)] = [None if number != number else number for number in numbers]
    return table


def column_of(score: str) -> str:
    """A score of one's own may have the name of another column."""
    return f"score {score}" if score in FIRST else score


def write_csv(rows: Sequence[Row], scores: Iterable[str], file: Path) -> None:
    """Texts that a spreadsheet would take for formulas begin with an apostrophe. Raises WriteError
    for a file that is not ours."""
    table = columns(rows, scores)
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow([harmless(name) for name in table])
    writer.writerows([harmless(cell) for cell in row] for row in zip(*table.values(), strict=True))
    put(file, text.getvalue().encode(), is_csv)


def write_parquet(rows: Sequence[Row], scores: Iterable[str], file: Path) -> None:
    """Typed, texts as they are. Raises PackageError without pyarrow, WriteError as ``write_csv``
    does."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise PackageError(
            "scores.parquet needs pyarrow: pip install 'attncontrol[report]'"
        ) from error
    table = columns(rows, scores)
    types = {name: "string" if name in FIRST else "float64" for name in table} | _NUMBERS
    arrays = [
        pyarrow.array(values, type=pyarrow.type_for_alias(types[name]))
        for name, values in table.items()
    ]
    made = pyarrow.table(arrays, names=list(table))
    with whole(file, is_parquet) as part:
        parquet.write_table(made.replace_schema_metadata({_MARK: b"report"}), part)


def harmless(cell: Any) -> Any:
    """Of a CSV file (CWE-1236): a text that begins as a formula does, at its start or where a
    spreadsheet may take a cell to begin, has an apostrophe before it."""
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\0", "\\0").replace("\r\n", "\n").replace("\r", "\n")
    return _FORMULA.sub("'", text)


def is_csv(file: Path) -> bool:
    """Whether ``write_csv`` wrote it."""
    return _begins(file, ",".join(f'"{name}"' for name in FIRST).encode())


def is_parquet(file: Path) -> bool:
    """Whether ``write_parquet`` may replace it; who it is of stands at its end."""
    if not _begins(file, b"PAR1"):
        return False
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 2**16))
        return _MARK in stream.read()


def _begins(file: Path, mark: bytes) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(mark)) == mark
    except OSError:
        return False


def _first(row: Row) -> dict[str, Any]:
    made, item = row.made, row.made.item
    settings = {name: said(value) for name, value in settings_of(item).items() if name != "model"}
    return {
        "name": item.name,
        "prompt": item.prompt,
        "seed": item.seed,
        "arm": row.arm.name,
        "method": item.method,
        "model": item.model,
        "settings": json.dumps(settings) if settings else None,
        "source": item.source,
        "file": made.file,
        "record": made.record,
        "error": row.error,
        "seconds": made.seconds,
        "loss": made.losses[-1] if made.losses else None,
        "refinements": sum(made.refinements) if made.refinements else None,
    }
