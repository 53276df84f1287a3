"""Inversions and editors side by side: rows of pictures."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attncontrol.batch.results import same_settings
from attncontrol.bench.edit_suite.judge import judged
from attncontrol.bench.photos.making import Cost, Edited, coded, edited, inverted, noised
from attncontrol.bench.photos.measures import compared, decibels, unedited
from attncontrol.bench.photos.methods import (
    NONE,
    changes,
    inverts_nothing,
    require_editor,
    require_inversion,
)
from attncontrol.bench.photos.pairs import Pair
from attncontrol.bench.photos.rows import Cell, Costs, FolderRow, PhotoRow
from attncontrol.bench.rows import append, read
from attncontrol.export.names import plain

_NAN = float("nan")


def run(
    pipe: Any,
    name: str,
    inversions: Sequence[str],
    editors: Sequence[str],
    pairs: Sequence[Pair],
    out: Path,
    *,
    batch: int = 8,
    progress: Callable[[Iterable[Any], str], Iterable[Any]],
    **call: Any,
) -> list[Any]:
    """Rows of all cells; those that ``photos.csv`` in ``out``, of a folder ``pairs.csv``, holds are
    not made again, new ones are appended batch by batch. ``name`` says which pairs these are.

    A batch is inverted once for all of its editors; ``batch`` pairs are twice as many images.
    Raises ResultsError if ``out`` has pictures that were made with other settings, SettingError for
    an inversion or an editor that the model cannot have.
    """
    kind, file = (PhotoRow, "photos.csv") if pairs[0].case else (FolderRow, "pairs.csv")
    groups = _grouped(inversions, editors)
    for inversion, some in groups.items():
        require_inversion(inversion, pipe, call)
        for editor in some:
            require_editor(editor, pipe, pairs)
            note = out / "settings" / f"{plain(name)}-{plain(inversion)}-{plain(editor)}.json"
            same_settings(note, _settings(pipe, editor, pairs, call), of=out / file)
    rows: dict[Cell, Any] = {_cell(row): row for row in read(out / file, kind)}
    for inversion, some in groups.items():
        for chunk in progress(_chunks(pairs, batch), f"{name}: {inversion}"):
            missing = [
                editor for editor in some
                if any(_asked(inversion, editor, pair) not in rows for pair in chunk)
            ]  # fmt: skip
            for made in _rows(pipe, inversion, missing, chunk, call):
                new = {_cell(row): row for row in made if _cell(row) not in rows}
                append(out / file, list(new.values()))
                rows |= new
    cells = [(inversion, editor) for inversion, some in groups.items() for editor in some]
    return [rows[_asked(*cell, pair)] for cell in cells for pair in pairs]


def _cell(row: Cell) -> Cell:
    return Cell(row.suite, row.method, row.prompt, row.seed, row.inversion)


def _asked(inversion: str, editor: str, pair: Pair) -> Cell:
    return Cell(pair.kind, editor, str(pair), pair.number, inversion)


def _grouped(inversions: Sequence[str], editors: Sequence[str]) -> dict[str, list[str]]:
    """Every inversion with its editors; those that need none stand beside the inversion none."""
    alone = [editor for editor in editors if inverts_nothing(editor)]
    others = [editor for editor in editors if not inverts_nothing(editor)]
    groups = {NONE: alone} | dict.fromkeys(inversions, others)
    return {inversion: some for inversion, some in groups.items() if some}


def _chunks(pairs: Sequence[Pair], batch: int) -> list[list[Pair]]:
    """Of one size of pictures each."""
    sizes = dict.fromkeys(pair.picture.size for pair in pairs)
    return [
        some[start : start + batch]
        for some in ([pair for pair in pairs if pair.picture.size == size] for size in sizes)
        for start in range(0, len(some), batch)
    ]


def _settings(
    pipe: Any, editor: str, pairs: Sequence[Pair], call: Mapping[str, Any]
) -> dict[str, Any]:
    about: dict[str, Any] = {"model": type(pipe).__name__}
    about |= {"device": str(pipe.device), "dtype": str(pipe.dtype)}
    about |= {"call": dict(call), "scheduler": type(pipe.scheduler).__name__}
    return about | {"edit": repr(changes(editor, pairs[:1], pipe))}


def _rows(
    pipe: Any,
    inversion: str,
    editors: Sequence[str],
    pairs: Sequence[Pair],
    call: Mapping[str, Any],
) -> Iterator[list[Any]]:
    """Of one editor after the other."""
    if not editors:
        return
    width, height = pairs[0].picture.size
    sized = {**call, "height": height, "width": width}
    limits = list(map(decibels, coded(pipe, pairs), [pair.picture for pair in pairs]))
    trajectory, before = None, Cost()
    if inversion != NONE:
        trajectory, before = inverted(pipe, inversion, pairs, sized)
    for editor in editors:
        if trajectory is None:
            made = noised(pipe, editor, pairs, sized)
        else:
            made = edited(pipe, trajectory, editor, pairs, sized)
        cells = [_asked(inversion, editor, pair) for pair in pairs]
        yield _measured(cells, pairs, made, _costs(pairs, made, before, limits))


def _costs(
    pairs: Sequence[Pair], made: Edited, before: Cost, limits: Sequence[float]
) -> list[Costs]:
    """Of every picture; those of the inversion are ``before``."""
    sources = [pair.picture for pair in pairs]
    rebuilt = list(map(decibels, made.rebuilt, sources)) or [_NAN] * len(pairs)
    seconds = (before.seconds + made.cost.seconds) / len(pairs)
    evaluations = (before.rows + made.cost.rows) / len(pairs)
    rest = round(evaluations, 2), round(seconds, 4)
    return [
        Costs(round(own, 4), round(limit, 4), *rest)
        for own, limit in zip(rebuilt, limits, strict=True)
    ]


def _measured(
    cells: Sequence[Cell], pairs: Sequence[Pair], made: Edited, costs: Sequence[Costs]
) -> list[Any]:
    with ThreadPoolExecutor() as pool:  # structural similarity takes most of the time
        distances = list(pool.map(_distances, pairs, made.pictures))
    every = [
        asdict(cell) | distance | asdict(cost)
        for cell, distance, cost in zip(cells, distances, costs, strict=True)
    ]
    cases = [pair.case for pair in pairs if pair.case]
    if not cases:
        return [FolderRow(**values) for values in every]
    return [
        PhotoRow(**values, shown=score.shown, kept=score.kept, iou=round(score.iou, 4))
        for values, score in zip(every, judged(cases, made.pictures), strict=True)
    ]


def _distances(pair: Pair, picture: Any) -> dict[str, float]:
    measures = asdict(compared(picture, pair.reference, pair.changed))
    if pair.case is None:
        measures |= asdict(unedited(picture, pair.picture, pair.changed))
    return {name: round(value, 6) for name, value in measures.items()}
