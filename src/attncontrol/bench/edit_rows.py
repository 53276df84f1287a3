"""What an edited picture is worth: one line of JSON for each, judged by the scorer."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attncontrol.batch.results import read_lines
from attncontrol.bench.edit_tasks import Task
from attncontrol.sprites.scenes import SIZE, Thing
from attncontrol.sprites.scorer import Detection, shows

SAME = 0.5  # IoU from which on a thing is where it was
MARGIN = 8  # pixels around what is found, whose thin parts the scorer may miss
NEAR = 12.0  # largest difference of background colours, 0 .. 255, that is the same


@dataclass(frozen=True)
class Row:
    """One picture. ``shown``: what is asked for is there, in its colour, or gone; ``kept``: the
    other thing is where it was, or the background; ``success`` is both. ``iou`` is that of what
    changes with what was there, of the first thing where one is added or taken away. ``outside`` is
    the peak signal-to-noise ratio outside of the boxes of both, in dB; ``confidence`` is that of
    the scorer in what it found; ``seconds`` of processor time for both pictures."""

    kind: str
    method: str
    prompt: str
    to: str
    seed: int
    success: float
    shown: float
    kept: float
    iou: float
    outside: float
    confidence: float
    seconds: float


def read(file: Path) -> list[Row]:
    names = {field.name for field in fields(Row)}
    values = [value for value in read_lines(file) if isinstance(value, dict)]
    return [Row(**value) for value in values if value.keys() == names]


def judged(
    task: Task,
    pictures: tuple[Image.Image, Image.Image],
    found: tuple[Sequence[Detection], Sequence[Detection]],
    **about: Any,
) -> Row:
    """Of the source and the edited picture, and of what the scorer finds in them."""
    before, after = (np.asarray(picture, np.float64) for picture in pictures)
    things = (task.changed, task.wanted or task.changed)
    was, now = (_mask(each, thing) for each, thing in zip(found, things, strict=True))
    changing = _boxes(found[0], things[0]) | _boxes(found[1], things[1])
    if task.kind == "style":
        kept = _background(before, after, changing) <= NEAR
        iou = float("nan")
    else:
        same = _overlap(_mask(found[0], task.other), _mask(found[1], task.other))
        kept = same >= SAME
        iou = _overlap(was, now) if task.changed and task.wanted else same
    shown = shows(found[1], task.wanted) if task.wanted else not now.any()
    return Row(
        task.kind, prompt=task.prompt, to=task.to, seed=task.seed,
        success=float(shown and kept), shown=float(shown), kept=float(kept), iou=round(iou, 4),
        outside=_decibels(before, after, ~changing),
        confidence=round(float(np.mean([each.confidence for each in found[1]] or [0.0])), 4),
        **about,
    )  # fmt: skip


def _mask(found: Sequence[Detection], thing: Thing | None) -> np.ndarray:
    """Where a noun is; nowhere if it was not found."""
    masks = [each.mask for each in found if thing is not None and each.noun == thing.noun]
    return masks[0] if masks else np.zeros((SIZE, SIZE), bool)


def _boxes(found: Sequence[Detection], thing: Thing | None) -> np.ndarray:
    """The box of a noun with the margin; nothing if it was not found."""
    inside = np.zeros((SIZE, SIZE), bool)
    for each in found:
        if thing is not None and each.noun == thing.noun:
            left, top, width, height = each.box
            rows = slice(max(top - MARGIN, 0), top + height + MARGIN)
            inside[rows, max(left - MARGIN, 0) : left + width + MARGIN] = True
    return inside


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _background(before: np.ndarray, after: np.ndarray, things: np.ndarray) -> float:
    """Largest difference of the median colours outside of things."""
    medians = [np.median(picture[~things], 0) for picture in (before, after)]
    return float(np.abs(medians[0] - medians[1]).max())


def _decibels(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> float:
    error = ((before - after) ** 2)[where].mean() / 255**2 if where.any() else 1.0
    return round(float(-10 * np.log10(max(error, 1e-10))), 2)
