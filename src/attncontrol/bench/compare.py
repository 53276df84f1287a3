"""Methods side by side on a bundled model: the tables of ``attncontrol bench``.

Suites, each of the 276 pairs of nouns of Attend-and-Excite's prompts:

pairs    the prompts themselves
triples  with a third noun: "a cat, a frog and a car"
colors   both nouns in colours of their own: "a red cat and a blue frog"
layout   without colours, each noun with a square box of its own, one on each side

Measures per picture: ``present``, all nouns are shown; ``bound``, in their colours; ``iou`` and
``inside``, overlap of what is found with its box and whether its centre lies there, mean over
nouns, 0 for those missing; ``confidence``, of the scorer in what it found.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from attncontrol import losses
from attncontrol.attention.regions import Box
from attncontrol.batch.generate import generate
from attncontrol.batch.results import same_settings
from attncontrol.bench.measure import benchmark_prompts, groups_of, things_of
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.sprites.scenes import COLORS, NOUNS, SIZE, Thing, caption
from attncontrol.sprites.scorer import Finding, find, shows

MEASURES = {
    "pairs": ("present", "confidence"),
    "triples": ("present", "confidence"),
    "colors": ("present", "bound", "confidence"),
    "layout": ("present", "iou", "inside", "confidence"),
}
SUITES = tuple(MEASURES)


@dataclass(frozen=True)
class Task:
    """A prompt and, in the layout suite, the box of every noun."""

    prompt: str
    boxes: Mapping[str, Box]


def tasks(suite: str, every: int = 1) -> list[Task]:
    """The tasks of a suite, every n-th of them; the same on every machine."""
    found = []
    for number, prompt in enumerate(
        p for of_group in benchmark_prompts().values() for p in of_group
    ):
        rng = np.random.default_rng((11, number))
        nouns = [thing.noun for thing in things_of(prompt)]
        if suite == "pairs":
            found.append(Task(prompt, {}))
        elif suite == "triples":
            third = str(rng.choice([noun for noun in NOUNS if noun not in nouns]))
            found.append(Task(caption(tuple(map(Thing, (*nouns, third))))[0], {}))
        elif suite == "colors":
            colors = rng.choice(list(COLORS), len(nouns), replace=False)
            found.append(
                Task(
                    caption(tuple(Thing(n, str(c)) for n, c in zip(nouns, colors, strict=True)))[0],
                    {},
                )
            )
        else:
            sides = rng.permutation(2)
            boxes = {noun: _box(rng, int(side)) for noun, side in zip(nouns, sides, strict=True)}
            found.append(Task(caption(tuple(map(Thing, nouns)))[0], boxes))
    return found[::every]


def _box(rng: np.random.Generator, side: int) -> Box:
    """A square in the left or the right half."""
    length = rng.uniform(0.36, 0.48)
    left, top = rng.uniform(0, 0.5 - length) + 0.5 * side, rng.uniform(0, 1 - length)
    return tuple(round(float(v), 3) for v in (left, top, left + length, top + length))  # type: ignore[return-value]  # four of them


@dataclass(frozen=True)
class Row:
    """One picture."""

    suite: str
    method: str
    prompt: str
    seed: int
    present: float
    bound: float
    iou: float
    inside: float
    confidence: float
    seconds: float
    memory: float


_NUMBERS = ("present", "bound", "iou", "inside", "confidence", "seconds", "memory")


def run(
    pipe: Any,
    suite: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    file: Path,
    *,
    every: int = 1,
    batch: int = 8,
    step_sizes: Mapping[str, float],
    refinements: int | None = None,
    progress: Callable[[Iterable[Any], str], Iterable[Any]],
    **call: Any,
) -> list[Row]:
    """Rows of all methods, plain first; those that ``file`` holds are not made again, new ones are
    appended batch by batch.

    ``step_sizes`` by method and ``refinements``, the largest number at a step, replace those of the
    methods. Raises ResultsError if ``file`` has pictures of a method with other settings, which
    are kept beside it.
    """
    rows = read(file)
    done = {(row.suite, row.method, row.prompt, row.seed) for row in rows}
    of_prompt = {task.prompt: task for task in tasks(suite, every)}
    for method in ("plain", *methods):
        objective = _objective(method, of_prompt.values())
        descent = Descent() if objective is None else objective.descent
        descent = (
            replace(descent, step_size=step_sizes[method]) if method in step_sizes else descent
        )
        descent = descent if refinements is None else replace(descent, max_refinements=refinements)
        settings = {
            "model": type(pipe).__name__,
            "dtype": str(pipe.dtype),
            "call": call,
            "descent": objective and repr(descent),
        }
        same_settings(file.with_name("settings") / f"{suite}-{method}.json", settings, of=file)
        open_jobs = [
            (p, seed) for p in of_prompt for seed in seeds if (suite, method, p, seed) not in done
        ]
        for jobs in progress(
            [open_jobs[i : i + batch] for i in range(0, len(open_jobs), batch)],
            f"{suite}: {method}",
        ):
            objective = _objective(method, [of_prompt[prompt] for prompt, _ in jobs])
            pictures = generate(
                pipe,
                jobs,
                None,
                method=method,
                objective=objective,
                descent=descent,
                batch=batch,
                **call,
            )
            made = [_row(suite, of_prompt[picture.prompt], picture) for picture in pictures]
            _append(file, made)
            rows += made
    return [
        row
        for row in rows
        if row.suite == suite and row.method in ("plain", *methods) and row.seed in seeds
    ]


def _objective(method: str, of: Iterable[Task]) -> Objective | None:
    """That of a method for these tasks, by their boxes if it can; None for plain."""
    if method == "plain":
        return None
    if losses.needs(method) == "layout":
        return losses.method(method, layout={task.prompt: task.boxes for task in of})
    return losses.method(method, groups_of([task.prompt for task in of]))


def _row(suite: str, task: Task, picture: Any) -> Row:
    things, findings = things_of(task.prompt), find([picture.image])[0]
    of = {finding.noun: finding for finding in findings}
    known = [of[thing.noun] for thing in things if thing.noun in of]
    return Row(
        suite,
        picture.method,
        task.prompt,
        picture.seed,
        present=float(len(known) == len(things)),
        bound=float(all(shows(findings, thing) for thing in things)),
        iou=_mean([_iou(of[noun], box) if noun in of else 0.0 for noun, box in task.boxes.items()]),
        inside=_mean(
            [_centred(of[noun], box) if noun in of else 0.0 for noun, box in task.boxes.items()]
        ),
        confidence=_mean([finding.confidence for finding in known]),
        seconds=picture.seconds,
        memory=round(picture.memory, 1),
    )


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else float("nan")


def _iou(finding: Finding, box: Box) -> float:
    x, y, width, height = (value / SIZE for value in finding.box)
    left, top, right, bottom = box
    shared = max(0.0, min(x + width, right) - max(x, left)) * max(
        0.0, min(y + height, bottom) - max(y, top)
    )
    return shared / (width * height + (right - left) * (bottom - top) - shared)


def _centred(finding: Finding, box: Box) -> float:
    x, y, width, height = (value / SIZE for value in finding.box)
    left, top, right, bottom = box
    return float(left <= x + width / 2 <= right and top <= y + height / 2 <= bottom)


def read(file: Path) -> list[Row]:
    """Rows of a CSV file; none if it does not exist."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [
            Row(
                row["suite"],
                row["method"],
                row["prompt"],
                int(row["seed"]),
                **{name: float(row[name]) for name in _NUMBERS},
            )
            for row in csv.DictReader(lines)
        ]


def _append(file: Path, rows: Sequence[Row]) -> None:
    new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, list(asdict(rows[0])))
        if new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line per method: every measure, its gain over plain with a 95 % bootstrap interval over
    prompts, and what it costs against plain: time, and memory above the weights.

    Only pictures that both made are compared.
    """
    by_method: dict[str, dict[tuple[str, int], Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.prompt, row.seed] = row
    plain, lines = by_method["plain"], []
    for method, made in by_method.items():
        keys = sorted(made.keys() & plain.keys())
        prompts = sorted({prompt for prompt, _ in keys})
        pick = np.random.default_rng(0).integers(len(prompts), size=(2_000, len(prompts)))
        line: dict[str, Any] = {"method": method, "n": len(keys)}
        for measure in MEASURES[rows[0].suite]:
            ours, theirs = (_by_prompt(of, keys, prompts, measure) for of in (made, plain))
            gains = np.nanmean((ours - theirs)[pick], 1)
            line[measure] = round(float(np.nanmean(ours)), 4)
            line[f"{measure}_gain"] = round(float(np.nanmean(ours - theirs)), 4)
            line[f"{measure}_interval"] = [
                round(float(v), 4) for v in np.quantile(gains, (0.025, 0.975))
            ]
        seconds, memory = (
            [float(np.median([getattr(of[key], name) for key in keys])) for of in (made, plain)]
            for name in _COSTS
        )
        ratios = {
            "time_ratio": round(seconds[0] / seconds[1], 2),
            "memory_ratio": round(memory[0] / max(memory[1], 1e-9), 2),
        }
        lines.append(line | ratios)
    return lines


_COSTS = ("seconds", "memory")


def _by_prompt(
    of: Mapping[tuple[str, int], Row],
    keys: Sequence[tuple[str, int]],
    prompts: Sequence[str],
    measure: str,
) -> np.ndarray:
    """Mean over the seeds of every prompt."""
    values: dict[str, list[float]] = {prompt: [] for prompt in prompts}
    for key in keys:
        values[key[0]].append(getattr(of[key], measure))
    return np.array([np.nanmean(v) if not np.isnan(v).all() else np.nan for v in values.values()])


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: rates in percent, gains in points with their intervals."""
    measures = [key for key in lines[0] if f"{key}_gain" in lines[0]]
    head = ["method", "n", *measures, "time", "memory"]
    table = [head, ["---"] * len(head)]
    for line in lines:
        cells = [line["method"], str(line["n"])]
        for measure in measures:
            low, high = (100 * v for v in line[f"{measure}_interval"])
            gain = (
                ""
                if line["method"] == "plain"
                else f" ({100 * line[f'{measure}_gain']:+.1f}; {low:.0f} to {high:.0f})"
            )
            cells.append(f"{100 * line[measure]:.1f}{gain}")
        table.append([*cells, f"{line['time_ratio']:.1f}", f"{line['memory_ratio']:.1f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"
