"""Methods side by side on a bundled model: the tables of ``attncontrol bench``.

Suites, each of the 276 pairs of nouns of Attend-and-Excite's prompts:

pairs       the prompts themselves
triples     with a third noun: "a cat, a frog and a car"
four        with two more: "a cat, a frog, a car and a clock", which no model was trained on
colors      both nouns in colours of their own: "a red cat and a blue frog"
attributes  with a third noun that has none: "a red cat, a blue frog and a car"
layout      without colours, each noun with a square box of its own, one on each side

Measures per picture: ``present``, all nouns are shown; ``bound``, in their colours; ``iou`` and
``inside``, overlap of what is found with its box and whether its centre lies there, mean over
nouns, 0 for those missing; ``confidence``, of the scorer in what it found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attncontrol import losses
from attncontrol.attention.regions import Box
from attncontrol.batch.generate import generate
from attncontrol.batch.results import same_settings
from attncontrol.bench.prompts import groups_of
from attncontrol.bench.rows import Row, append, read
from attncontrol.bench.shown import mean, shown
from attncontrol.bench.tasks import Task, tasks
from attncontrol.objectives.descent import Descent, Relative
from attncontrol.objectives.objective import Objective
from attncontrol.sprites.scenes import SIZE
from attncontrol.sprites.scorer import Detection, detect


def run(
    pipe: Any,
    suite: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    file: Path,
    *,
    every: int = 1,
    batch: int = 8,
    step_sizes: Mapping[str, float | Relative],
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
    rows: list[Row] = read(file)
    done = {(row.suite, row.method, row.prompt, row.seed) for row in rows}
    of_prompt = {task.prompt: task for task in tasks(suite, every)}
    for method in ("plain", *methods):
        objective = _objective(method, of_prompt.values())
        descent = _descent(objective, step_sizes.get(method), refinements)
        settings = {
            "model": type(pipe).__name__,
            "device": str(pipe.device),
            "dtype": str(pipe.dtype),
            "call": call,
            "descent": objective and repr(descent),
        }
        same_settings(file.with_name("settings") / f"{suite}-{method}.json", settings, of=file)
        jobs = [(p, s) for p in of_prompt for s in seeds if (suite, method, p, s) not in done]
        chunks = [jobs[start : start + batch] for start in range(0, len(jobs), batch)]
        for chunk in progress(chunks, f"{suite}: {method}"):
            objective = _objective(method, [of_prompt[prompt] for prompt, _ in chunk])
            how: dict[str, Any] = {"objective": objective, "descent": descent, "batch": batch}
            pictures = generate(pipe, chunk, None, method=method, **how, **call)
            made = [_row(suite, of_prompt[picture.prompt], picture) for picture in pictures]
            append(file, made)
            rows += made
    wanted = ("plain", *methods)
    return [r for r in rows if r.suite == suite and r.method in wanted and r.seed in seeds]


def _descent(
    objective: Objective | None, step_size: float | Relative | None, refinements: int | None
) -> Descent:
    """That of the objective, with other numbers where they are given."""
    descent = Descent() if objective is None else objective.descent
    if step_size is not None:
        descent = replace(descent, step_size=step_size)
    return descent if refinements is None else replace(descent, max_refinements=refinements)


def _objective(method: str, of: Iterable[Task]) -> Objective | None:
    """That of a method for these tasks, by their boxes if it can; None for plain."""
    if method == "plain":
        return None
    if losses.needs(method) == "layout":
        return losses.method(method, layout={task.prompt: task.boxes for task in of})
    return losses.method(method, groups_of([task.prompt for task in of]))


def _row(suite: str, task: Task, picture: Any) -> Row:
    detections = detect([picture.image])[0]
    by_noun = {detection.noun: detection for detection in detections}
    places = [(by_noun.get(noun), box) for noun, box in task.boxes.items()]
    return Row(
        suite,
        picture.method,
        task.prompt,
        picture.seed,
        iou=mean([box_iou(detection, box) if detection else 0.0 for detection, box in places]),
        inside=mean([_centred(detection, box) if detection else 0.0 for detection, box in places]),
        seconds=picture.seconds,
        memory=round(picture.memory, 1),
        **shown(task.prompt, detections)._asdict(),
    )


def box_iou(detection: Detection, box: Box) -> float:
    """Of the bounding box of what was found with a box in fractions of the picture."""
    x, y, width, height = (value / SIZE for value in detection.box)
    left, top, right, bottom = box
    wide = max(0.0, min(x + width, right) - max(x, left))
    shared = wide * max(0.0, min(y + height, bottom) - max(y, top))
    return shared / (width * height + (right - left) * (bottom - top) - shared)


def _centred(detection: Detection, box: Box) -> float:
    x, y, width, height = (value / SIZE for value in detection.box)
    left, top, right, bottom = box
    return float(left <= x + width / 2 <= right and top <= y + height / 2 <= bottom)
