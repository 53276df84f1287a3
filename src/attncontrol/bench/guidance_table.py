"""From rows of pictures to the table of arms: what guidance does, in numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol.batch.results import read_lines
from attncontrol.errors import ResultsError
from attncontrol.sprites.quality import (
    Gaussian,
    Quality,
    frechet,
    gaussian,
)

MEASURES = ("frechet", "iou", "confidence", "present", "bound")


TRUE = ("reference", "true")


_RESAMPLES = 400


@dataclass(frozen=True)
class Row:
    """One picture; ``number`` is its seed and that of its scene, ``seconds`` its share of its
    batch."""

    number: int
    seconds: float
    quality: Quality


def read(file: Path) -> dict[int, Row]:
    """Rows by number. Raises ResultsError for a file of other lines."""
    rows = {}
    for known in read_lines(file):
        try:
            features = tuple(known["quality"]["features"])
            quality = Quality(**{**known["quality"], "features": features})
            rows[known["number"]] = Row(known["number"], known["seconds"], quality)
        except (TypeError, LookupError) as error:
            raise ResultsError(f"{file} holds no pictures of an arm ({error!r})") from error
    return rows


def table(folder: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """One line per arm, plain first, and ``true``: Frechet distance to the reference and the mean
    of every other measure, the gain of each over plain with a 95 % bootstrap interval, and the
    median ratio of time to plain.

    The pictures are the numbers that all arms made; resampled are numbers, the same ones in all
    arms, with the reference as it is.
    """
    rows = {
        name: read(folder / f"{name}.jsonl") for name in dict.fromkeys((*TRUE, "plain", *names))
    }
    numbers = sorted(set.intersection(*(set(of_arm) for of_arm in rows.values())))
    if len(numbers) < 2:
        raise ResultsError(
            f"{folder} has {len(numbers)} pictures that all of {', '.join(rows)} made; "
            "a table needs two"
        )
    values = {
        name: _values([of_arm[number] for number in numbers]) for name, of_arm in rows.items()
    }
    reference = gaussian(values.pop("reference")[1])
    rng = np.random.default_rng(0)
    picks = [
        np.bincount(rng.integers(len(numbers), size=len(numbers)), minlength=len(numbers))
        for _ in range(_RESAMPLES)
    ]
    picks.append(np.ones(len(numbers), int))  # all of them as they are
    plain = _drawn(reference, *values["plain"], picks)
    lines = []
    for name in ("plain", *(name for name in values if name != "plain")):
        drawn = plain if name == "plain" else _drawn(reference, *values[name], picks)
        ratios = [rows[name][number].seconds / rows["plain"][number].seconds for number in numbers]
        time = float("nan") if name == "true" else round(float(np.median(ratios)), 2)
        line = {"arm": name, "n": len(numbers)} | _measured(drawn, plain)
        lines.append(line | {"time_ratio": time})
    return lines


def _measured(drawn: np.ndarray, plain: np.ndarray) -> dict[str, Any]:
    """Every measure of resamples [resample measure], the last of them all pictures as they are, its
    gain over plain and the interval of that."""
    *resampled, gains = drawn - plain
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    line: dict[str, Any] = {}
    for k, name in enumerate(MEASURES):
        line[name] = round(float(drawn[-1, k]), 4)
        line[f"{name}_gain"] = round(float(gains[k]), 4)
        line[f"{name}_interval"] = [round(float(low[k]), 4), round(float(high[k]), 4)]
    return line


def _drawn(
    reference: Gaussian, measured: np.ndarray, features: np.ndarray, picks: Sequence[np.ndarray]
) -> np.ndarray:
    """MEASURES of every resample [resample measure], of which ``picks`` say how often each picture
    counts."""
    return np.array(
        [
            [frechet(reference, gaussian(features, counts)), *(counts @ measured / counts.sum())]
            for counts in picks
        ]
    )


def _values(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """[picture measure] of all but the Frechet distance, and features [picture feature]."""
    measured = [[getattr(row.quality, name) for name in MEASURES[1:]] for row in rows]
    return np.array(measured, float), np.array([row.quality.features for row in rows])


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: Frechet distance in its own units, the rest in percent; in brackets the
    gain over plain."""
    head = ["arm", "n", "Frechet distance", "sprite IoU", *MEASURES[2:], "time"]
    cells = [head, ["---"] * len(head)]
    for line in lines:
        row = [line["arm"], str(line["n"])]
        for name in MEASURES:
            unit = 1 if name == "frechet" else 100
            low, high = (unit * v for v in line[f"{name}_interval"])
            gain = (
                f" ({unit * line[f'{name}_gain']:+.1f}; {low:.1f} to {high:.1f})"
                if line["arm"] != "plain"
                else ""
            )
            row.append("" if np.isnan(line[name]) else f"{unit * line[name]:.1f}{gain}")
        cells.append([*row, "" if np.isnan(line["time_ratio"]) else f"{line['time_ratio']:.1f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"
