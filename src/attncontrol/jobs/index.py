"""The index of a job's folder: a row for every picture that was made, or that failed.

It is a table of SQLite, of the standard library, and not Parquet: rows come one by one, are
replaced, and count from the moment in which their transaction ends, also when the process is killed
in the next one. One process writes an index; the ranks of ``torchrun`` have one each, which
``read`` joins.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import ValidationError

from attncontrol.errors import ResultsError, WriteError
from attncontrol.jobs.item import Item
from attncontrol.jobs.made import Made
from attncontrol.jobs.places import Place, Store, place_of
from attncontrol.writing import put

NAME = "index.sqlite"
RANKS = "ranks"  # folders by rank, each with an index of its own
_COLUMNS = (
    "number INTEGER, name TEXT PRIMARY KEY, item TEXT, file TEXT, pixels TEXT, record TEXT, "
    "losses TEXT, refinements TEXT, seconds REAL, error TEXT, memory REAL"
)
Row = tuple[int, Made]
"""With the number of the item in the job."""


class Index:
    """Of one writer, opened by ``opened``."""

    def __init__(self, connection: sqlite3.Connection, file: Path):
        self._connection, self.file = connection, file

    def rows(self) -> dict[str, Row]:
        """By the names of the items. Raises ResultsError."""
        return _rows(self._connection, self.file)

    def add(self, rows: Iterable[Row]) -> None:
        """All or none of them, in place of earlier ones of these items. Raises WriteError."""
        values = [_values(number, made) for number, made in rows]
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        self._change(f"INSERT OR REPLACE INTO pictures VALUES ({marks})", values)

    def forget(self, names: Iterable[str]) -> None:
        """Raises WriteError."""
        self._change("DELETE FROM pictures WHERE name = ?", [(name,) for name in names])

    def _change(self, statement: str, values: list[tuple[object, ...]]) -> None:
        try:
            with self._connection:  # a transaction
                self._connection.executemany(statement, values)
        except sqlite3.Error as error:
            raise WriteError(f"{self.file} did not grow: {error}; all before is kept") from error


@contextmanager
def opened(file: Path) -> Iterator[Index]:
    """The index of this file, which is made, in a folder that is there. Raises WriteError, and
    ResultsError for a file that is none."""
    try:
        connection = sqlite3.connect(file, check_same_thread=False)  # one thread at a time
    except sqlite3.Error as error:
        raise WriteError(f"{file} cannot be written: {error}") from error
    with closing(connection):
        try:
            with connection:
                connection.execute(f"CREATE TABLE IF NOT EXISTS pictures({_COLUMNS})")
        except sqlite3.OperationalError as error:
            raise WriteError(f"{file} cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ResultsError(f"{file} is no index of a job: {error}") from error
        yield Index(connection, file)


def read(folder: Path | str) -> list[Made]:
    """All that is known of a job's folder, or URL, in the order of the job. Raises ResultsError if
    it has no index, or one that cannot be read."""
    place = place_of(folder)
    if isinstance(place, Store):
        fetch(place)
    if not any(file.is_file() for file in _files(place)):
        raise ResultsError(
            f"{folder} has no {NAME}: give a folder that attncontrol batch --out wrote"
        )
    return joined(place)


def fetch(place: Store) -> None:
    """The indices of a place that is elsewhere."""
    names = [NAME, *(f"{RANKS}/{rank}/{NAME}" for rank in place.names(RANKS))]
    for name in names:
        if (data := place.get(name)) is not None:
            put(place.local / name, data)


def joined(place: Place) -> list[Made]:
    """All rows, in the order of the job. Raises ResultsError."""
    return [made for _, made in sorted(rows_of(place).values(), key=lambda row: row[0])]


def rows_of(place: Place) -> dict[str, Row]:
    """Of all indices, by the names of the items; a picture counts more than an error. Raises
    ResultsError."""
    found: dict[str, Row] = {}
    for file in filter(Path.is_file, _files(place)):
        for name, row in _of_file(file).items():
            if name not in found or found[name][1].error is not None:
                found[name] = row
    return found


def _files(place: Place) -> list[Path]:
    return [place.local / NAME, *sorted(place.local.glob(f"{RANKS}/*/{NAME}"))]


def _of_file(file: Path) -> Mapping[str, Row]:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True)) as connection:
            return _rows(connection, file)  # "rw": what a killed process left is put right
    except sqlite3.Error as error:
        raise ResultsError(f"{file} is no index of a job: {error}") from error


def _rows(connection: sqlite3.Connection, file: Path) -> dict[str, Row]:
    try:
        found = connection.execute("SELECT * FROM pictures").fetchall()
        return {name: (number, _made(*rest)) for number, name, *rest in found}
    except (sqlite3.Error, ValidationError, ValueError, TypeError) as error:
        raise ResultsError(f"{file} is no index of a job: {error}") from error


def _values(number: int, made: Made) -> tuple[object, ...]:
    item = made.item.model_dump_json(exclude_defaults=True)
    lists = json.dumps(made.losses), json.dumps(made.refinements)
    place = made.file, made.pixels, made.record
    return (number, made.item.name, item, *place, *lists, made.seconds, made.error, made.memory)


def _made(
    item: str,
    file: str | None,
    pixels: str | None,
    record: str | None,
    losses: str,
    refinements: str,
    seconds: float,
    error: str | None,
    memory: float | None,
) -> Made:
    steps = tuple(json.loads(losses)), tuple(json.loads(refinements))
    return Made(
        Item.model_validate_json(item), file, pixels, record, *steps, seconds, error, memory or 0.0
    )
