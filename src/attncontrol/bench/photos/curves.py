"""What editors change and keep over their strengths, of several models: ``python -m
attncontrol.bench.photos.curves DIR FILE.png``.

    for model in sprites sprites-sd3; do
        attncontrol bench --suite photos --model $model --inversions exact \\
            --editors p2p@curve,replace@curve --kind recolour,swap --out DIR/$model
    done

``DIR`` has a folder for every model, as ``attncontrol bench`` leaves it. Drawn is success ("both")
against the PSNR outside of what changes, a panel for every kind; the table is printed.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attncontrol.bench.photos.rows import PhotoRow
from attncontrol.bench.photos.table import summary
from attncontrol.bench.rows import read
from attncontrol.bench.suites import PHOTOS
from attncontrol.errors import ResultsError
from attncontrol.export.chart import Point, Strength, tradeoffs

Curves = Mapping[str, Mapping[tuple[str, str], list[Strength]]]
"""By kind and by (model, editor)."""


def curves_of(folder: Path, inversion: str) -> Curves:
    """Of all models in a folder, in the order of strengths. Raises ResultsError if there are
    none."""
    found: dict[str, dict[tuple[str, str], list[Strength]]] = {}
    for kind, model, line in _lines(folder, inversion):
        editor, _, strength = line["editor"].partition("@")
        low, high = (100 * end for end in line["both_interval"])
        point = Point(line["psnr_outside"], 100 * line["both"], low, high)
        lines = found.setdefault(kind, {}).setdefault((model, editor), [])
        lines.append(Strength(float(strength), point))
    for lines in (each for kinds in found.values() for each in kinds.values()):
        lines.sort(key=lambda each: each.value)
    if not found:
        raise ResultsError(
            f"{folder} has no model with editors of several strengths by {inversion}: "
            "make them with --editors p2p@curve"
        )
    return found


def _lines(folder: Path, inversion: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, model, and the summary of an editor with a strength."""
    for model in sorted(each for each in folder.iterdir() if each.is_dir()):
        rows = read(model / "photos.csv", PhotoRow)
        for kind in PHOTOS:
            some = [
                row
                for row in rows
                if (row.suite, row.inversion) == (kind, inversion)
                and "@" in row.method
                and "+" not in row.method
            ]
            for line in summary(some) if some else ():
                yield kind, model.name, line


def markdown(curves: Curves) -> str:
    """Both in percent / PSNR outside in dB, a column for every strength."""
    lines = [each for kinds in curves.values() for each in kinds.values()]
    values = sorted({strength.value for line in lines for strength in line})
    table = ["| kind | model | editor | " + " | ".join(f"{u:g}" for u in values) + " |"]
    table.append("|---" * (3 + len(values)) + "|")
    for kind, kinds in curves.items():
        for (model, editor), strengths in kinds.items():
            at = {each.value: f"{each.at.y:.0f} / {each.at.x:.1f}" for each in strengths}
            cells = " | ".join(at.get(value, "") for value in values)
            table.append(f"| {kind} | {model} | `{editor}` | {cells} |")
    return "\n".join(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--inversion", default="exact")
    args = parser.parse_args()
    found = curves_of(args.folder, args.inversion)
    print(markdown(found))
    tradeoffs(found, "PSNR outside, dB", "what is asked is shown, the rest kept, %", args.file)


if __name__ == "__main__":
    main()
