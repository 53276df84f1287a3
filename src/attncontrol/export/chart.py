"""Bar charts of measured rates, with matplotlib (``pip install attncontrol[bench]``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attncontrol.errors import UnsupportedError


def bars(lines: Sequence[Mapping[str, Any]], measures: Sequence[str], file: Path) -> None:
    """One group of bars per measure, one bar per method, in percent; whiskers are the intervals of the gain over plain."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError("charts are drawn with matplotlib: pip install attncontrol[bench]") from error
    figure = Figure(figsize=(2 + 2.4 * len(measures), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.85 / len(lines)
    for k, line in enumerate(lines):
        heights = [100 * line[measure] for measure in measures]
        below, above = [], []
        for measure in measures:
            low, high = (100 * v for v in line[f"{measure}_interval"])
            gain = 100 * line[f"{measure}_gain"]
            below.append(max(gain - low, 0))
            above.append(max(high - gain, 0))
        places = [m + (k - (len(lines) - 1) / 2) * width for m in range(len(measures))]
        color = "0.6" if line["method"] == "plain" else None
        axes.bar(places, heights, width, yerr=(below, above), label=line["method"], color=color, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(measures)), measures)
    axes.set_ylabel("%")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(file, dpi=150)
