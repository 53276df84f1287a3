"""Charts of what was measured, with matplotlib (``pip install attncontrol[bench]``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attncontrol.batch.head_search import HeadSearch
from attncontrol.errors import UnsupportedError


def bars(lines: Sequence[Mapping[str, Any]], measures: Sequence[str], file: Path) -> None:
    """One group of bars per measure, one bar per method, in percent; whiskers are the intervals of
    the gain over plain."""
    figure = _figure(2 + 2.4 * len(measures), 4.0)
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
        axes.bar(
            places,
            heights,
            width,
            yerr=(below, above),
            label=line["method"],
            color=color,
            error_kw={"linewidth": 0.8},
        )
    axes.set_xticks(range(len(measures)), measures)
    axes.set_ylabel("%")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(file, dpi=150)


def head_scores(found: HeadSearch, file: Path) -> None:
    """Layer x head, one picture per round: the mean score of every head that was tried; chosen ones
    are framed, others gray."""
    layers = list(dict.fromkeys(name for name, _ in found.rounds[0].scores))
    heads = 1 + max(head for _, head in found.rounds[0].scores)
    label = max(map(len, layers))
    figure = _figure(
        1.5 + 0.085 * label + len(found.rounds) * (0.42 * heads + 1.2), 1.2 + 0.36 * len(layers)
    )
    plots = figure.subplots(1, len(found.rounds), squeeze=False, sharey=True)[0]
    for number, (each, axes) in enumerate(zip(found.rounds, plots, strict=True), 1):
        values = [
            [each.scores.get((layer, head), float("nan")) for head in range(heads)]
            for layer in layers
        ]
        axes.set_facecolor("0.85")
        image = axes.imshow(values, cmap="viridis", aspect="auto")
        for layer, head in each.chosen:
            at = (head - 0.5, layers.index(layer) - 0.5)
            axes.add_patch(_rectangle(at))
        axes.set_title(
            f"round {number}\n{'heads before' if number > 1 else 'plain'}: {each.without:.3g}"
        )
        axes.set_xticks(range(heads))
        axes.set_yticks(range(len(layers)), layers)
        axes.set_xlabel("head")
        figure.colorbar(image, ax=axes, label="mean score")
    figure.savefig(file, dpi=150)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError(
            "charts are drawn with matplotlib: pip install attncontrol[bench]"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _rectangle(at: tuple[float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(at, 1, 1, fill=False, edgecolor="red", linewidth=2)
