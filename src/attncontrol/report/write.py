"""The report of a job's folder: a page, a CSV file, and a Parquet file where pyarrow is there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attncontrol.errors import PackageError, ResultsError
from attncontrol.jobs.index import NAME, read
from attncontrol.report.page import is_page, page, require_size
from attncontrol.report.rows import Row, rows_of
from attncontrol.report.statistics import Line, lines_of
from attncontrol.report.tables import is_csv, is_parquet, write_csv, write_parquet
from attncontrol.scores.names import Models, of_models, require_scores
from attncontrol.scores.score import scores_of
from attncontrol.writing import put, require_free


@dataclass(frozen=True)
class Report:
    """``files`` that were written; ``left_out`` says which one was not, and why."""

    files: tuple[Path, ...]
    rows: tuple[Row, ...]
    scores: tuple[str, ...]
    lines: tuple[Line, ...]
    left_out: str | None = None


def write(
    folder: Path | str,
    scores: Sequence[str] | None = None,
    *,
    out: Path | str | None = None,
    models: Models | None = None,
    device: str = "cpu",
    with_page: bool = True,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, _: items,
) -> Report:
    """Scores the pictures of a job and writes ``report.html``, ``scores.csv`` and
    ``scores.parquet`` into its folder, or the page to ``out`` and the tables beside it.

    ``scores`` are names of ``attncontrol.scores.names.ABOUT`` or "module:function"; without them
    those of the bundled models for their pictures, else none. The folder may still grow: the report
    is of what is there. Raises ResultsError for a folder without an index or with an empty one,
    SettingError for a score that is none, ModelError for a model of a score that cannot be loaded,
    SizeError for more pictures than a page holds, WriteError for files that are not ours; all
    before a picture is read.
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
    rows = rows_of(folder, made, scores_of(names, models, device), progress)
    files = [tables["csv"]]
    write_csv(rows, names, tables["csv"])
    left_out = None
    try:
        write_parquet(rows, names, tables["parquet"])
        files.append(tables["parquet"])
    except PackageError as error:
        left_out = str(error)
    if with_page:
        put(place, page(rows, names, folder, place).encode(), is_page)
        files.insert(0, place)
    return Report(tuple(files), tuple(rows), tuple(names), tuple(lines_of(rows, names)), left_out)
