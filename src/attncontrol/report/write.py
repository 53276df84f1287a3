"""The report of a job's folder: a page, a CSV file, and a Parquet file where pyarrow is there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attncontrol.errors import PackageError, ResultsError
from attncontrol.jobs.index import NAME, read
from attncontrol.jobs.made import Made
from attncontrol.report.page import is_page, page, require_size
from attncontrol.report.rows import Row, rows_of
from attncontrol.report.statistics import Line, lines_of
from attncontrol.report.tables import is_csv, is_parquet, write_csv, write_parquet
from attncontrol.scores.kept import Kept
from attncontrol.scores.names import Models, of_models, require_scores
from attncontrol.scores.score import scores_of
from attncontrol.writing import put, require_free

Progress = Callable[[Iterable[Any], str], Iterable[Any]]
"""Goes through parts of a work of a name, and shows it."""


@dataclass(frozen=True)
class Report:
    """``files`` that were written; ``left_out`` says which one was not, and why."""

    files: tuple[Path, ...]
    rows: tuple[Row, ...]
    scores: tuple[str, ...]
    lines: tuple[Line, ...]
    left_out: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A report of which all is checked, and the models of its scores are loaded."""

    folder: Path
    made: tuple[Made, ...]
    scores: Kept
    page: Path | None
    tables: Mapping[str, Path]

    def write(self, progress: Progress = lambda items, _: items) -> Report:
        """Raises WriteError."""
        rows = rows_of(self.folder, self.made, self.scores, progress)
        names = tuple(self.scores.scores)
        files, left_out = [self.tables["csv"]], None
        write_csv(rows, names, self.tables["csv"])
        try:
            write_parquet(rows, names, self.tables["parquet"])
            files.append(self.tables["parquet"])
        except PackageError as error:
            left_out = str(error)
        if self.page is not None:
            put(self.page, page(rows, names, self.folder, self.page).encode(), is_page)
            files.insert(0, self.page)
        return Report(tuple(files), tuple(rows), names, tuple(lines_of(rows, names)), left_out)


def prepare(
    folder: Path | str,
    scores: Sequence[str] | None = None,
    *,
    out: Path | str | None = None,
    models: Models | None = None,
    device: str = "cpu",
    with_page: bool = True,
) -> Prepared:
    """Scores a job and writes ``report.html``, ``scores.csv`` and ``scores.parquet`` into its
    folder, or the page to ``out`` and the tables beside it, by ``write``.

    ``scores`` are names of ``attncontrol.scores.names.ABOUT`` or "module:function"; without them
    those of the bundled models for their pictures, else none. The folder may still grow: the report
    is of what is there. Raises ResultsError for a folder without an index or with an empty one,
    SettingError for a score that is none, ModelError for a model of a score that cannot be loaded,
    SizeError for more pictures than a page holds, WriteError for files that are not ours.
    """
    folder = Path(folder)
    made = read(folder)
    if not made:
        raise ResultsError(f"{folder / NAME} is empty: nothing was made yet")
    used = {each.item.model for each in made}
    names = list(of_models(used) if scores is None else scores)
    require_scores(names, used)
    place = Path(out) if out is not None else folder / "report.html"
    tables = {kind: place.with_name(f"scores.{kind}") for kind in ("csv", "parquet")}
    if with_page:
        require_size(len(made))
        require_free(place, is_page)
    require_free(tables["csv"], is_csv)
    require_free(tables["parquet"], is_parquet)
    kept = Kept.read(folder, scores_of(names, models, device), models or Models())
    return Prepared(folder, tuple(made), kept, place if with_page else None, tables)
