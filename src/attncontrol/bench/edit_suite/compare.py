"""Methods of editing side by side: rows of pictures."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attncontrol.batch.memory import peak_memory
from attncontrol.batch.results import same_settings
from attncontrol.bench.edit_suite.judge import judged
from attncontrol.bench.edit_suite.methods import fits, judged_by, make, settings
from attncontrol.bench.edit_suite.possible import require_methods
from attncontrol.bench.edit_suite.sources import Case, cases
from attncontrol.bench.rows import EditRow, append, read
from attncontrol.errors import ResultsError
from attncontrol.export.names import plain

FILE = "edits.csv"


def run(
    pipe: Any,
    kind: str,
    methods: Sequence[str],
    pairs: int,
    folder: Path,
    *,
    batch: int = 8,
    progress: Callable[[Iterable[Any], str], Iterable[Any]],
    **call: Any,
) -> list[EditRow]:
    """Rows of all methods that fit a kind of edit, for its first ``pairs`` tasks; those that
    ``edits.csv`` in ``folder`` holds are not made again, new ones are appended batch by batch.

    ``batch`` pictures are made in one call, sources that come along with their edits among them.
    Seconds are of the processor, of the clock on other devices, and per picture. Raises
    ResultsError if the folder has pictures that were made with other settings, SettingError for a
    method that the model cannot have.
    """
    wanted = [name for name in methods if fits(name, kind)]
    require_methods(pipe, wanted, kind)
    about: dict[str, Any] = {"model": type(pipe).__name__, "call": call}
    about |= {"device": str(pipe.device), "dtype": str(pipe.dtype)}
    notes, file = folder / "settings", folder / FILE
    same_settings(notes / "edits-sources.json", about, of=folder / "sources")
    options: dict[str, Any] = {"batch": batch, "progress": progress}
    every = cases(pipe, kind, pairs, folder / "sources", **options, **call)
    if not every:
        raise ResultsError(f"no source picture for {kind} shows what its prompt says")
    rows = [row for row in read(file, EditRow) if row.suite == kind]
    done = {(row.method, row.prompt, row.seed) for row in rows}
    for name in wanted:
        note = notes / f"edits-{kind}-{plain(name)}.json"
        same_settings(note, about | {"edit": settings(name, every[0])}, of=file)
        missing = [c for c in every if (name, str(c.task), c.task.seed) not in done]
        each = max(batch // 2, 1) if every[0].picture is not None else batch
        chunks = [missing[start : start + each] for start in range(0, len(missing), each)]
        for chunk in progress(chunks, f"{kind}: {name}"):
            made = _rows(pipe, name, chunk, call)
            append(file, made)
            rows += made
    keys = {(str(case.task), case.task.seed) for case in every}
    return [r for r in rows if r.method in wanted and (r.prompt, r.seed) in keys]


def _rows(pipe: Any, name: str, some: Sequence[Case], call: dict[str, Any]) -> list[EditRow]:
    clock = time.process_time if pipe.device.type == "cpu" else time.perf_counter
    began = clock()
    with peak_memory(pipe.device) as held:
        pictures, sources = make(pipe, name, some, **call)
    seconds = (clock() - began) / (len(pictures) + len(sources))
    if sources:
        some = [judged_by(name, *each) for each in zip(some, sources, strict=True)]
    results = judged(some, pictures)
    return [
        EditRow(
            case.task.kind,
            name,
            str(case.task),
            case.task.seed,
            **{measure: round(value, 4) for measure, value in asdict(result).items()},
            seconds=round(seconds, 4),
            memory=round(held[0], 1),
        )
        for case, result in zip(some, results, strict=True)
    ]
