"""Charts of what was measured, with matplotlib (``pip install attncontrol[bench]``)."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from PIL import Image

from attncontrol.errors import PackageError
from attncontrol.writing import put

_MADE = "attncontrol chart"


@runtime_checkable
class Tried(Protocol):
    """One round of a search for heads, which are (site, number)."""

    @property
    def scores(self) -> Mapping[tuple[str, int], float]: ...

    @property
    def chosen(self) -> Sequence[tuple[str, int]]: ...

    @property
    def without(self) -> float: ...


def bars(lines: Sequence[Mapping[str, Any]], measures: Sequence[str], file: Path) -> None:
    """One group of bars per measure, one bar per method, in percent; whiskers are the intervals of
    the gain over plain."""
    figure = _figure(2 + 2.4 * len(measures), 4.0)
    axes = figure.subplots()
    width = 0.85 / len(lines)
    for k, line in enumerate(lines):
        axes.bar(
            [m + (k - (len(lines) - 1) / 2) * width for m in range(len(measures))],
            [100 * line[measure] for measure in measures],
            width,
            yerr=_whiskers(line, measures),
            label=line["method"],
            color="0.6" if line["method"] == "plain" else None,
            error_kw={"linewidth": 0.8},
        )
    axes.set_xticks(range(len(measures)), measures)
    axes.set_ylabel("%")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    _written(figure, file)


def curves(lines: Sequence[Mapping[str, Any]], x: str, y: str, file: Path) -> None:
    """One measure against another: a line through all strengths of a method, ``name@strength``,
    which stand beside their points, and by itself the point of its usual strength; whiskers are the
    intervals of the gain over the first method. What ends in ``outside`` is in dB, the others in
    percent."""
    figure = _figure(7.5, 4.5)
    axes, by_name = figure.subplots(), dict[str, list[Mapping[str, Any]]]()
    for line in lines:
        name = _without_strengths(line["method"])
        usual = " (usual)" * any(n["method"].startswith(f"{line['method']}@") for n in lines)
        by_name.setdefault(name + usual, []).append(line)
    unit = 1 if x.endswith("outside") else 100
    for number, (name, points) in enumerate(by_name.items()):
        points.sort(key=lambda line: _strengths(line["method"]))
        right = [unit * line[x] for line in points]
        up = [100 * line[y] for line in points]
        whiskers = [_whiskers(line, [y]) for line in points]
        axes.errorbar(
            right, up, yerr=[[w[side][0] for w in whiskers] for side in (0, 1)], label=name,
            marker="o", markersize=4, linewidth=1.2, elinewidth=0.6,
            color="0.4" if not number else None,
        )  # fmt: skip
        for line, *at in zip(points, right, up, strict=True):
            shown = ", ".join(f"{u:g}" for u in _strengths(line["method"]))
            axes.annotate(shown, at, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel(f"{x}, {'dB' if unit == 1 else '%'}")
    axes.set_ylabel(f"{y}, %")
    axes.set_ylim(0, 102)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False)
    _written(figure, file)


class Point(NamedTuple):
    """A value and the ends of its interval."""

    x: float
    y: float
    low: float
    high: float


def panels(
    of_each: Mapping[str, Mapping[str, Sequence[Point]]], x: str, y: str, file: Path
) -> None:
    """One panel beside the other, of equal axes, with a line per method; x is logarithmic."""
    figure = _figure(1.5 + 2.6 * len(of_each), 3.4)
    places = figure.subplots(1, len(of_each), squeeze=False, sharex=True, sharey=True)[0]
    methods = list(dict.fromkeys(name for lines in of_each.values() for name in lines))
    ticks = sorted({p.x for lines in of_each.values() for line in lines.values() for p in line})
    for axes, (title, lines) in zip(places, of_each.items(), strict=True):
        axes.axhline(0, color="0.6", linewidth=0.8)
        for name, points in lines.items():
            ends = [[p.y - p.low for p in points], [p.high - p.y for p in points]]
            axes.errorbar(
                [p.x for p in points], [p.y for p in points], yerr=ends, label=name, marker="o",
                markersize=4, linewidth=1.2, elinewidth=0.5, color=f"C{methods.index(name)}",
            )  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(x)
        axes.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel(y)
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    _written(figure, file)


class Strength(NamedTuple):
    """Of a method: how strong it is, and the point that it then has."""

    value: float
    at: Point


def tradeoffs(
    of_each: Mapping[str, Mapping[tuple[str, str], Sequence[Strength]]], x: str, y: str, file: Path
) -> None:
    """One panel beside the other, of equal axes, with a line through the strengths of every (model,
    method): a colour for the model, a dash for the method; the first and the last strength stand
    beside their points."""
    figure = _figure(2.4 + 3.2 * len(of_each), 3.6)
    places = figure.subplots(1, len(of_each), squeeze=False, sharex=True, sharey=True)[0]
    names = list(dict.fromkeys(name for lines in of_each.values() for name in lines))
    models, methods = (list(dict.fromkeys(each)) for each in zip(*names, strict=True))
    for axes, (title, lines) in zip(places, of_each.items(), strict=True):
        for (model, method), strengths in lines.items():
            points = [each.at for each in strengths]
            ends = [[p.y - p.low for p in points], [p.high - p.y for p in points]]
            axes.errorbar(
                [p.x for p in points], [p.y for p in points], yerr=ends, marker="o", markersize=3,
                linewidth=1.2, elinewidth=0.4, color=f"C{models.index(model)}",
                linestyle=("-", "--", ":", "-.")[methods.index(method) % 4],
                label=f"{model}, {method}",
            )  # fmt: skip
            for value, at in (strengths[0], strengths[-1]):
                axes.annotate(f"{value:g}", (at.x, at.y), xytext=(3, 3),
                              textcoords="offset points", fontsize=7)  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x)
        axes.spines[["top", "right"]].set_visible(False)
    places[0].set_ylabel(y)
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    _written(figure, file)


def _without_strengths(method: str) -> str:
    return re.sub(r"@[^+]*", "", method)


def _strengths(method: str) -> list[float]:
    return [float(u) for u in re.findall(r"@([^+]+)", method)]


def _whiskers(line: Mapping[str, Any], measures: Sequence[str]) -> tuple[list[float], list[float]]:
    """How far the interval reaches below and above the gain, in percent."""
    below, above = [], []
    for measure in measures:
        low, high = (100 * v for v in line[f"{measure}_interval"])
        gain = 100 * line[f"{measure}_gain"]
        below.append(max(gain - low, 0))
        above.append(max(high - gain, 0))
    return below, above


def head_scores(rounds: Sequence[Tried], file: Path) -> None:
    """Layer x head, one picture per round: the mean score of every head that was tried; chosen ones
    are framed, others gray."""
    layers = list(dict.fromkeys(name for name, _ in rounds[0].scores))
    heads = 1 + max(head for _, head in rounds[0].scores)
    width = 1.5 + 0.085 * max(map(len, layers)) + len(rounds) * (0.42 * heads + 1.2)
    figure = _figure(width, 1.2 + 0.36 * len(layers))
    plots = figure.subplots(1, len(rounds), squeeze=False, sharey=True)[0]
    for number, (each, axes) in enumerate(zip(rounds, plots, strict=True), 1):
        values = [
            [each.scores.get((layer, head), float("nan")) for head in range(heads)]
            for layer in layers
        ]
        axes.set_facecolor("0.85")
        image = axes.imshow(values, cmap="viridis", aspect="auto")
        for layer, head in each.chosen:
            axes.add_patch(_rectangle((head - 0.5, layers.index(layer) - 0.5)))
        before = "heads before" if number > 1 else "plain"
        axes.set_title(f"round {number}\n{before}: {each.without:.3g}")
        axes.set_xticks(range(heads))
        axes.set_yticks(range(len(layers)), layers)
        axes.set_xlabel("head")
        figure.colorbar(image, ax=axes, label="mean score")
    _written(figure, file)


def is_chart(file: Path) -> bool:
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            return picture.info.get("Software") == _MADE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _written(figure: Any, file: Path) -> None:
    data = io.BytesIO()
    figure.savefig(data, dpi=150, metadata={"Software": _MADE})
    put(file, data.getvalue(), is_chart)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PackageError(
            "charts are drawn with matplotlib: pip install attncontrol[bench]"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _rectangle(at: tuple[float, float]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(at, 1, 1, fill=False, edgecolor="red", linewidth=2)
