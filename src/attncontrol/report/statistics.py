"""Ways of a job side by side: means of scores, and gains on pictures of the same prompt and
seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attncontrol.bench.rates import bootstrap, by_prompt
from attncontrol.report.arms import Arm
from attncontrol.report.rows import Row

_Place = tuple[str, int]


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts of means over seeds, and its 95 % bootstrap interval over prompts, NaN of
    fewer than two."""

    value: float
    low: float
    high: float
    prompts: int


@dataclass(frozen=True)
class Line:
    """An arm. ``gains`` are what it has more than ``against`` on the ``pairs`` of pictures that
    both made of the same prompt and seed; ``time`` is a multiple of that of ``against``."""

    arm: Arm
    pictures: int
    failed: int
    seconds: float
    means: Mapping[str, Estimate] = field(default_factory=dict)
    against: Arm | None = None
    pairs: int = 0
    gains: Mapping[str, Estimate] = field(default_factory=dict)
    time: float | None = None


def lines_of(rows: Sequence[Row], scores: Sequence[str]) -> list[Line]:
    """In the order of the job; none is compared with a later one. An arm is compared with plain
    pictures of its setup, or, where there are none of its prompts and seeds, with the first arm
    that has some."""
    of_arm: dict[Arm, list[Row]] = {}
    for row in rows:
        of_arm.setdefault(row.arm, []).append(row)
    places = {
        arm: {_place(row) for row in some if row.error is None} for arm, some in of_arm.items()
    }
    lines = []
    for arm, some in of_arm.items():
        against = _against(arm, places)
        other = of_arm[against] if against else []
        lines.append(_line(arm, some, against, other, scores))
    return lines


def _against(arm: Arm, places: Mapping[Arm, set[_Place]]) -> Arm | None:
    others = [each for each in places if each.setup == arm.setup]
    before = others[: others.index(arm)]
    plain = [each for each in others if each.method == "plain" and not each.how]
    candidates = [] if arm in plain else [*plain, *before]
    return next((each for each in candidates if places[each] & places[arm]), None)


def _line(
    arm: Arm, some: Sequence[Row], against: Arm | None, other: Sequence[Row], scores: Sequence[str]
) -> Line:
    made = [row for row in some if row.error is None]
    ours, theirs = ({_place(row) for row in rows if row.error is None} for rows in (some, other))
    seconds = _seconds(made, ours)
    shared = ours & theirs
    of_both = [_seconds(each, shared) for each in (made, other)] if shared else []
    return Line(
        arm,
        len(made),
        len(some) - len(made),
        seconds,
        {name: found for name in scores if (found := _estimate(_values(made, name)))},
        against,
        len(shared),
        {name: found for name in scores if shared and (found := _gain(made, other, name))},
        of_both[0] / of_both[1] if shared and of_both[1] > 0 else None,
    )


def _place(row: Row) -> _Place:
    return row.made.item.prompt, row.made.item.seed


def _seconds(rows: Sequence[Row], places: set[_Place]) -> float:
    values = [row.made.seconds for row in rows if row.error is None and _place(row) in places]
    return float(np.median(values)) if values else float("nan")


def _values(rows: Sequence[Row], score: str) -> dict[_Place, float]:
    """By prompt and seed: the mean of several, without those that the score says nothing about."""
    found: dict[_Place, list[float]] = {}
    for row in rows:
        value = row.scores.get(score, float("nan"))
        if value == value:
            found.setdefault(_place(row), []).append(value)
    return {place: float(np.mean(values)) for place, values in found.items()}


def _gain(ours: Sequence[Row], theirs: Sequence[Row], score: str) -> Estimate | None:
    first, second = _values(ours, score), _values(theirs, score)
    return _estimate({place: first[place] - second[place] for place in first if place in second})


def _estimate(values: Mapping[_Place, float]) -> Estimate | None:
    prompts = list(dict.fromkeys(prompt for prompt, _ in values))
    if not prompts:
        return None
    means = by_prompt(values, prompts)
    low, high = bootstrap(means) if len(means) > 1 else (float("nan"), float("nan"))
    return Estimate(float(means.mean()), low, high, len(means))
