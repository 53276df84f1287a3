"""What a method gains over its relative step: ``python -m attncontrol.bench.step_curves DIR
FILE.png``.

    for share in 3 6 12; do
        attncontrol bench --suite colors --model sprites-flux --methods auto,syngen \\
            --step-size auto=$share% --step-size syngen=$share% --out DIR/sprites-flux/$share
    done

``DIR`` has a folder for every model and in it one for every share in percent, as ``attncontrol
bench`` leaves them; drawn is the mean over the pictures of ``--measure`` less that of plain ones.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from attncontrol.bench.rows import read
from attncontrol.bench.suites import MEASURES
from attncontrol.bench.summary import summary
from attncontrol.errors import ResultsError
from attncontrol.export.chart import Point, panels

Curves = Mapping[str, list[Point]]
"""By method."""


def curves_of(folder: Path, measure: str) -> Curves:
    """Of one model: the gain at every share, with its interval, in percent."""
    found: dict[str, list[Point]] = {}
    shares = sorted(float(each.name) for each in folder.iterdir() if each.is_dir())
    for share in shares:
        for line in summary(read(folder / f"{share:g}" / "pictures.csv"))[1:]:
            low, high = (100 * end for end in line[f"{measure}_interval"])
            point = Point(share, 100 * line[f"{measure}_gain"], low, high)
            found.setdefault(line["method"], []).append(point)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--measure", default="bound", choices=MEASURES["colors"])
    args = parser.parse_args()
    models = sorted(each for each in args.folder.iterdir() if each.is_dir())
    if not models:
        raise ResultsError(f"{args.folder} has no folder of a model")
    drawn = {each.name: curves_of(each, args.measure) for each in models}
    panels(drawn, "step, % of the latents", f"{args.measure}, points over plain", args.file)


if __name__ == "__main__":
    main()
