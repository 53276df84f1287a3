"""From rows of pictures to the table of methods."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol.batch.results import require_results
from attncontrol.bench.rates import bootstrap, by_prompt
from attncontrol.bench.rows import AnyRow
from attncontrol.bench.suites import DECIBELS, EDITS, MEASURES
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
        for measure in _MEASURES[rows[0].suite]:
            ours, theirs = (
                by_prompt({key: getattr(pictures[key], measure) for key in keys}, prompts)
                for pictures in (made, plain)
            )
            line[measure] = round(float(np.nanmean(ours)), 4)
            line[f"{measure}_gain"] = round(float(np.nanmean(ours - theirs)), 4)
            line[f"{measure}_interval"] = [round(bound, 4) for bound in bootstrap(ours - theirs)]
        seconds, memory = (
            [
                float(np.median([getattr(pictures[key], name) for key in keys]))
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


_COSTS = ("seconds", "memory")
_MEASURES = {**MEASURES, **EDITS}


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: rates in percent, gains in points with their intervals; PSNR in dB."""
    measures = [key for key in lines[0] if f"{key}_gain" in lines[0]]
    head = ["method", "n", *measures, "time", "memory"]
    table = [head, ["---"] * len(head)]
    for line in lines:
        cells = [line["method"], str(line["n"])]
        for measure in measures:
            unit, digits = (1, 1) if measure in DECIBELS else (100, 0)
            low, high = (f"{unit * v:.{digits}f}" for v in line[f"{measure}_interval"])
            gain = f" ({unit * line[f'{measure}_gain']:+.1f}; {low} to {high})"
            cells.append(f"{unit * line[measure]:.1f}{gain if line is not lines[0] else ''}")
        memory = line["memory_ratio"]
        table.append([*cells, f"{line['time_ratio']:.1f}", f"{memory:.1f}" if memory else ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"


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
    if suite in MEASURES:
        bars(lines, MEASURES[suite], chart)
    else:
        of_kind = EDITS[suite.removeprefix("edits-")]
        curves(lines, "outside" if "outside" in of_kind else "iou", "shown", chart)


def _is_table(file: Path) -> bool:
    with file.open("rb") as stream:
        begin = stream.read(100)
    return begin.startswith((b"| method | n |", b'[\n {\n  "method": '))


_OURS = {".md": _is_table, ".json": _is_table, ".png": is_chart}
