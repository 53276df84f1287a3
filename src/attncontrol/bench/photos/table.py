"""From rows of pictures to the table of inversions x editors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol.bench.photos.rows import FolderRow
from attncontrol.bench.rates import bootstrap
from attncontrol.export.chart import curves, is_chart
from attncontrol.writing import put, require_free

_HEAD = "| inversion | editor | n |"


@dataclass(frozen=True)
class Column:
    """A measure as people read it: its name, what it is multiplied by, and digits."""

    title: str
    unit: float = 1.0
    digits: int = 1


_SHARED = {
    "psnr": Column("PSNR"),
    "ssim": Column("SSIM", 100.0),
    "mse": Column("MSE", 1e4),
    "psnr_inside": Column("PSNR inside"),
    "ssim_inside": Column("SSIM inside", 100.0),
    "mse_inside": Column("MSE inside", 1e4),
    "psnr_outside": Column("PSNR outside"),
    "ssim_outside": Column("SSIM outside", 100.0),
    "mse_outside": Column("MSE outside", 1e4),
}
_COSTS = {
    "rebuilt": Column("rebuilt"),
    "limit": Column("limit"),
    "evaluations": Column("evaluations", digits=0),
    "seconds": Column("seconds", digits=2),
}
_SCENES = {
    "both": Column("both", 100.0),
    "shown": Column("shown", 100.0),
    "kept": Column("kept", 100.0),
    "iou": Column("iou", 100.0),
    **_SHARED,
    **_COSTS,
}
_FOLDER = {
    "psnr_unedited": Column("PSNR unedited"),
    "ssim_unedited": Column("SSIM unedited", 100.0),
    "mse_unedited": Column("MSE unedited", 1e4),
    **_SHARED,
    **_COSTS,
}
_READ = {  # of the many, those that the table for people has
    False: (
        "both", "shown", "kept", "psnr", "ssim", "psnr_inside", "psnr_outside", "ssim_outside",
        "mse_outside", "rebuilt", "limit", "evaluations", "seconds",
    ),
    True: (
        "psnr_unedited", "ssim_unedited", "mse_unedited", "psnr", "ssim", "psnr_outside",
        "ssim_outside", "mse_outside", "rebuilt", "limit", "evaluations", "seconds",
    ),
}  # fmt: skip


def summary(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """One line per inversion and editor: the mean of every measure, None where no picture has it,
    and of all but the costs a 95 % bootstrap interval over pairs."""
    cells: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        cells.setdefault((row.inversion, row.method), []).append(row)
    measures, lines = (_FOLDER if isinstance(rows[0], FolderRow) else _SCENES), []
    for (inversion, editor), some in cells.items():
        line: dict[str, Any] = {"inversion": inversion, "editor": editor, "n": len(some)}
        for measure in measures:
            values = np.array([getattr(row, measure) for row in some])
            known = not np.isnan(values).all()
            line[measure] = round(float(np.nanmean(values)), 6) if known else None
            if measure not in _COSTS:
                ends = bootstrap(values[~np.isnan(values)]) if known else ()
                line[f"{measure}_interval"] = [round(end, 6) for end in ends] or None
        lines.append(line)
    return lines


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: rates and SSIM in percent, MSE x 10^4, PSNR in dB; success and PSNR
    with their intervals."""
    folder = "psnr_unedited" in lines[0]
    columns = {name: (_FOLDER if folder else _SCENES)[name] for name in _READ[folder]}
    table = [[column.title for column in columns.values()], ["---"] * len(columns)]
    for line in lines:
        table.append([_cell(line, name, column) for name, column in columns.items()])
    begin = [_HEAD, "| --- | --- | --- |"]
    begin += [f"| {line['inversion']} | {line['editor']} | {line['n']} |" for line in lines]
    every = zip(begin, table, strict=True)
    return "".join(f"{first} {' | '.join(row)} |\n" for first, row in every)


def _cell(line: Mapping[str, Any], name: str, column: Column) -> str:
    if line[name] is None:
        return ""
    unit, digits = column.unit, column.digits
    text = f"{unit * line[name]:.{digits}f}"
    if name not in ("both", "psnr", "psnr_outside", "psnr_unedited"):
        return text
    low, high = (f"{unit * end:.{digits}f}" for end in line[f"{name}_interval"])
    return f"{text} ({low} to {high})"


def require_place(folder: Path, name: str) -> None:
    """Raises WriteError for files of others where ``write`` writes."""
    for ending, ours in _OURS.items():
        require_free(folder / f"{name}{ending}", ours)


def write(lines: Sequence[Mapping[str, Any]], name: str, folder: Path) -> None:
    """The table for people and for programs, and the chart: success, of a folder the likeness to
    the picture, against what is kept outside. Raises PackageError for the last, the others are then
    there."""
    data = {".md": markdown(lines), ".json": json.dumps(lines, indent=1)}
    for ending, text in data.items():
        put(folder / f"{name}{ending}", text.encode(), _OURS[ending])
    up = "ssim" if "psnr_unedited" in lines[0] else "both"
    named = [
        {**line, "method": f"{line['inversion']}, {line['editor']}", f"{up}_gain": line[up]}
        for line in lines
    ]
    curves(named, "psnr_outside", up, folder / f"{name}.png")


def _is_table(file: Path) -> bool:
    with file.open("rb") as stream:
        begin = stream.read(100)
    return begin.startswith((_HEAD.encode(), b'[\n {\n  "inversion": '))


_OURS = {".md": _is_table, ".json": _is_table, ".png": is_chart}
