"""Methods side by side: the tables of ``attncontrol bench``.

Suites, each of the 276 pairs of nouns of Attend-and-Excite's prompts:

pairs       the prompts themselves
triples     with a third noun: "a cat, a frog and a car"
four        with two more: "a cat, a frog, a car and a clock", which no model was trained on
colors      both nouns in colours of their own: "a red cat and a blue frog"
attributes  with a third noun that has none: "a red cat, a blue frog and a car"
layout      without colours, each noun with a square box of its own, one on each side

Or prompts of one's own, from a file. Measures per picture on a bundled model: ``present``, all
nouns are shown; ``bound``, in their colours; ``iou`` and ``inside``, overlap of what is found with
its box and whether its centre lies there, mean over nouns, 0 for those missing; ``confidence``, of
the scorer in what it found. On all models those of ``attncontrol.scores``.

The pictures are those of a job, see ``attncontrol.jobs``, in the folder ``job``.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from attncontrol import losses
from attncontrol.attention.regions import Box
from attncontrol.batch.generate import Picture
from attncontrol.batch.pipelines import call_of
from attncontrol.batch.results import same_settings
from attncontrol.bench.prompts import groups_of
from attncontrol.bench.rows import Row, Scored, kept, write_scored
from attncontrol.bench.shown import mean, shown
from attncontrol.bench.suites import OWN
from attncontrol.bench.tasks import Task, tasks
from attncontrol.errors import ResultsError, SettingError
from attncontrol.jobs.engine import run as made_of
from attncontrol.jobs.files import read_job
from attncontrol.jobs.guiding import objective
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.made import Made
from attncontrol.objectives.descent import Relative
from attncontrol.sprites.scenes import SIZE
from attncontrol.sprites.scorer import Detection, detect

JOB = "job"
_CHUNK = 64  # pictures that are open at once
Scores = Mapping[str, Callable[[Sequence[Image.Image], Sequence[Made]], Sequence[float]]]


@dataclass(frozen=True)
class Asked:
    """What a table compares: every prompt and seed of ``job`` by every method, plain first.
    ``boxes``: where the nouns of a prompt shall be."""

    suite: str
    job: Job
    boxes: Mapping[str, Mapping[str, Box]] = field(default_factory=dict)


def of_suite(
    suite: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    *,
    every: int = 1,
    step_sizes: Mapping[str, float | Relative] | None = None,
    refinements: int | None = None,
    **settings: Any,
) -> Asked:
    """``step_sizes`` by method and ``refinements``, the largest number at a step, replace those of
    the methods; ``settings`` are fields of an item, such as ``model``."""
    all_tasks = tasks(suite, every)
    items = []
    for method in ("plain", *methods):
        needs = None if method == "plain" else losses.needs(method)
        for task in all_tasks:
            groups = groups_of([task.prompt])[task.prompt]
            given: dict[str, Any] = {"words": groups} if needs == "words" else {}
            given = {"boxes": dict(task.boxes)} if needs == "layout" else given
            item = Item(prompt=task.prompt, method=method, **given, **settings)
            changed = _changed(item, step_sizes or {}, refinements)
            items += [changed.model_copy(update={"seed": seed}) for seed in seeds]
    return Asked(suite, Job.of(items), {task.prompt: task.boxes for task in all_tasks})


def of_file(
    file: Path,
    methods: Sequence[str],
    seeds: str,
    *,
    step_sizes: Mapping[str, float | Relative] | None = None,
    refinements: int | None = None,
    **settings: str,
) -> Asked:
    """Prompts of a file ``.txt``, one a line, or of a job, with words and boxes. Raises JobError,
    SettingError for a file that says more."""
    ways = json.dumps({"method": ["plain", *methods]})
    defaults = [f"matrix={ways}", f"seeds={seeds}", *(f"{k}={v}" for k, v in settings.items())]
    job = read_job(file, defaults)
    times = Counter((item.prompt, item.seed) for item in job.items)
    if odd := [place for place, count in times.items() if count != 1 + len(methods)]:
        raise SettingError(
            f"{file}: {odd[0][0]!r}, seed {odd[0][1]}, is made {times[odd[0]]} times by "
            f"{1 + len(methods)} methods; give prompts, words and boxes alone, each prompt once"
        )
    items = [_changed(item, step_sizes or {}, refinements) for item in job.items]
    in_order = sorted(items, key=lambda item: ["plain", *methods].index(item.method))  # stable
    return Asked(OWN, Job.of(in_order), {item.prompt: item.boxes for item in items if item.boxes})


def _changed(
    item: Item, step_sizes: Mapping[str, float | Relative], refinements: int | None
) -> Item:
    changes: dict[str, Any] = {}
    size = step_sizes.get(item.method)
    if size is not None:
        changes["step_size"] = f"{100 * size.share:g}%" if isinstance(size, Relative) else size
    if refinements is not None and item.method != "plain":
        changes["parameters"] = item.parameters | {"descent.max_refinements": refinements}
    return item.model_copy(update=changes) if changes else item


def run(
    asked: Asked,
    folder: Path,
    *,
    scores: Scores | None = None,
    batch: int = 8,
    workers: int = 1,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Row] | list[Scored]:
    """Rows of all pictures; those that ``folder`` has are not made again. ``scores`` are measured
    in place of what the suite does; called with pictures and what a job says of them. The rows are
    in ``pictures.csv``, those of ``scores`` in a file named as the suite.

    Raises ResultsError if the folder has pictures of a method with other settings, which are kept
    in it, and if a method has made no picture.
    """
    _require_same(asked, folder, device)
    made = made_of(
        asked.job,
        folder / JOB,
        batch=batch,
        workers=workers,
        device=device,
        beside=True,
        progress=progress,
    )
    whole = [each for each in made if each.error is None]
    for method in dict.fromkeys(each.item.method for each in made):
        if method not in {each.item.method for each in whole}:
            error = next(each.error for each in made if each.item.method == method)
            raise ResultsError(f"no picture of {method} could be made: {error}")
    if scores is None:
        rows = [_measured(asked, folder / JOB, each) for each in whole]
        kept(folder / "pictures.csv", rows)
        return rows
    scored = [row for chunk in _chunks(whole) for row in _scored(asked, folder, chunk, scores)]
    write_scored(folder / f"{asked.suite}.csv", scored)
    return scored


def _require_same(asked: Asked, folder: Path, device: str) -> None:
    first = {item.method: item for item in reversed(asked.job.items)}
    for method, item in first.items():
        _, descent = objective([item])
        call = call_of(item.model, item.steps, item.guidance, item.negative)
        settings: dict[str, Any] = {
            "model": item.model,
            "device": device,
            "dtype": item.dtype,
            "call": call,
        }
        settings |= {"descent": descent and repr(descent)}
        note = folder / "settings" / f"{asked.suite}-{method}.json"
        same_settings(note, settings, of=folder)


def _chunks(made: Sequence[Made]) -> Iterator[Sequence[Made]]:
    return (made[start : start + _CHUNK] for start in range(0, len(made), _CHUNK))


def _opened(folder: Path, made: Made) -> Image.Image:
    with Image.open(folder / str(made.file)) as picture:
        return picture.convert("RGB")


def _measured(asked: Asked, folder: Path, made: Made) -> Row:
    item = made.item
    task = Task(item.prompt, asked.boxes.get(item.prompt, {}))
    steps = made.losses, made.refinements
    image = _opened(folder, made)
    seconds = made.seconds or float("nan")  # of a picture whose row was lost
    picture = Picture(item.prompt, item.seed, item.method, image, {}, *steps, seconds, made.memory)
    return row_of(asked.suite, task, picture)


def _scored(asked: Asked, folder: Path, some: Sequence[Made], scores: Scores) -> list[Scored]:
    pictures = [_opened(folder / JOB, each) for each in some]
    values = {name: score(pictures, some) for name, score in scores.items()}
    return [
        Scored(
            asked.suite, each.item.method, each.item.prompt, each.item.seed,
            {name: round(of[k], 6) for name, of in values.items()},
            seconds=each.seconds, memory=round(each.memory, 1),
        )
        for k, each in enumerate(some)
    ]  # fmt: skip


def row_of(suite: str, task: Task, picture: Any) -> Row:
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
