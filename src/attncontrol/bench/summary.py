"""From rows of pictures to the table of methods."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol.batch.results import require_results
from attncontrol.bench.rates import bootstrap, by_prompt
from attncontrol.bench.rows import AnyRow, Made, Scored, is_table
from attncontrol.bench.suites import DECIBELS, EDITS, MEASURES, OF_OWN, OWN, SHARES
from attncontrol.export.chart import bars, curves, is_chart
from attncontrol.writing import put, require_free


def summary(rows: Sequence[AnyRow]) -> list[dict[str, Any]]:
    """One line per method: every measure, its gain over the first method, plain or same-seed, with
    a 95 % bootstrap interval over prompts, and what it costs against that: time, and memory above
    the weights.

    Only pictures that both made are compared.
    """
    by_method: dict[str, dict[tuple[str, int], AnyRow]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.prompt, row.seed] = row
    plain, lines = by_method[rows[0].method], []
    for method, made in by_method.items():
        keys = sorted(made.keys() & plain.keys())
        prompts = sorted({prompt for prompt, _ in keys})
        line: dict[str, Any] = {"method": method, "n": len(keys)}
        for measure in _measures(rows[0]):
            ours, theirs = (
                by_prompt({key: _value(pictures[key], measure) for key in keys}, prompts)
                for pictures in (made, plain)
            )
            line[measure] = round(float(np.nanmean(ours)), 4)
            line[f"{measure}_gain"] = round(float(np.nanmean(ours - theirs)), 4)
            line[f"{measure}_interval"] = [round(bound, 4) for bound in bootstrap(ours - theirs)]
        seconds, memory = (
            [
                float(np.nanmedian([getattr(pictures[key], name) for key in keys]))
                for pictures in (made, plain)
            ]
            for name in _COSTS
        )
        ratios = {
            "time_ratio": round(seconds[0] / seconds[1], 2),
            "memory_ratio": round(memory[0] / memory[1], 2) if memory[1] >= 1 else None,  # MiB
        }
        lines.append(line | ratios)
    return lines


_EDITS = "edits-"
_COSTS = ("seconds", "memory")
_MEASURES = {**MEASURES, **EDITS, OWN: OF_OWN}


def _measures(row: Made) -> tuple[str, ...]:
    return tuple(row.scores) if isinstance(row, Scored) else _MEASURES[row.suite]


def _value(row: Made, measure: str) -> float:
    value: float = row.scores[measure] if isinstance(row, Scored) else getattr(row, measure)
    return value


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: rates in percent, gains in points with their intervals; PSNR in dB."""
    measures = [key for key in lines[0] if f"{key}_gain" in lines[0]]
    head = ["method", "n", *measures, "time", "memory"]
    table = [head, ["---"] * len(head)]
    for line in lines:
        cells = [line["method"], str(line["n"])]
        for measure in measures:
            unit, digits, fewer = _shown(measure)
            low, high = (f"{unit * v:.{fewer}f}" for v in line[f"{measure}_interval"])
            gain = f" ({unit * line[f'{measure}_gain']:+.{digits}f}; {low} to {high})"
            cells.append(f"{unit * line[measure]:.{digits}f}{gain if line is not lines[0] else ''}")
        memory = line["memory_ratio"]
        table.append([*cells, f"{line['time_ratio']:.1f}", f"{memory:.1f}" if memory else ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"


def _shown(measure: str) -> tuple[int, int, int]:
    """By what a measure is multiplied, its digits, and those of its interval."""
    if measure in DECIBELS:
        return 1, 1, 1
    return (100, 1, 0) if measure in SHARES else (1, 3, 3)


def require_place(folder: Path, suite: str) -> None:
    """Raises WriteError for a folder that ``run`` and ``write`` would not write into."""
    require_results(folder, "settings", ["pictures.csv", "edits.csv"])
    for ending, ours in _OURS.items():
        require_free(folder / f"{suite}{ending}", ours)


def write(lines: Sequence[Mapping[str, Any]], suite: str, folder: Path) -> None:
    """The table for people and for programs, and the chart: of ``edits-KIND`` curves of success
    against what is preserved. Raises PackageError for the last, the others are then there."""
    data = {".md": markdown(lines), ".json": json.dumps(lines, indent=1)}
    for ending, text in data.items():
        put(folder / f"{suite}{ending}", text.encode(), _OURS[ending])
    chart = folder / f"{suite}.png"
    if not suite.startswith(_EDITS):
        if shares := [name for name in lines[0] if name in SHARES]:
            bars(lines, shares, chart)
    else:
        of_kind = EDITS[suite.removeprefix(_EDITS)]
        curves(lines, "outside" if "outside" in of_kind else "iou", "shown", chart)


def _is_table(file: Path) -> bool:
    with file.open("rb") as stream:
        begin = stream.read(100)
    return begin.startswith((b"| method | n |", b'[\n {\n  "method": '))


_OURS = {".md": _is_table, ".json": _is_table, ".png": is_chart, ".csv": is_table}
