"""What an edited picture is worth; the measures are those of ``bench.edit_suite``."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from attncontrol.bench.compare import box_iou
from attncontrol.bench.edit_suite.sources import Case, mask, shifted
from attncontrol.bench.edit_suite.tasks import Task
from attncontrol.bench.rows import Judged
from attncontrol.sprites.scorer import Detection, detect, shows

SAME = 0.5  # IoU of what has kept its place
MARGIN = 8  # pixels, two cells of the scorer, whose masks lack thin parts of what they find
_NAN = float("nan")
_ROUNDING = 1 / 12  # mean square of the error of 8 bits


def judged(cases: Sequence[Case], pictures: Sequence[Image.Image]) -> list[Judged]:
    """One for every case and the picture made of it."""
    every = zip(cases, pictures, detect(pictures), strict=True)
    return [
        _placed(case, found) if case.picture is None else _edited(case, picture, found)
        for case, picture, found in every
    ]


def _placed(case: Case, found: Sequence[Detection]) -> Judged:
    task, by_noun = case.task, {each.noun: each for each in found}
    ious = [
        box_iou(by_noun[noun], box) if noun in by_noun else 0.0 for noun, box in task.boxes.items()
    ]
    shown = all(shows(found, thing) for thing in task.target)
    sure = _confidence(task, found)
    return Judged(float(shown), _NAN, float(np.mean(ious)), _NAN, _NAN, _NAN, sure)


def _edited(case: Case, picture: Image.Image, found: Sequence[Detection]) -> Judged:
    task = case.task
    first, second = (np.asarray(p, np.float64) for p in (case.picture, picture))
    old, new = mask(case.found, task.before), mask(found, task.after)
    changing = _around(old) | _around(new)
    stays = mask(case.found, task.rest)
    tint = np.abs(first[stays].mean(0) - second[stays].mean(0)) / 255 if stays.any() else _NAN
    iou = _iou_of(case, found, old, new)
    return Judged(
        shown=float(_shown(task, found, iou)),
        kept=float(_kept(case, found)),
        iou=iou,
        outside=_decibels(first, second, ~changing),
        other=_decibels(first, second, stays),
        tint=float(np.sqrt(np.mean(np.square(tint)))),
        confidence=_confidence(task, found),
    )


def _iou_of(case: Case, found: Sequence[Detection], old: np.ndarray, new: np.ndarray) -> float:
    kind, rest = case.task.kind, case.task.rest
    if kind == "style":
        return _NAN
    if kind in ("add", "remove"):
        return _iou(mask(case.found, rest), mask(found, rest))
    return _iou(shifted(old, case.move), new)


def _shown(task: Task, found: Sequence[Detection], iou: float) -> bool:
    if task.after is None:
        return not mask(found, task.before).any()
    return shows(found, task.after) and (task.kind != "move" or iou >= SAME)


def _kept(case: Case, found: Sequence[Detection]) -> bool:
    task = case.task
    if task.kind == "style":
        return _color(found, task.after) == _color(case.found, task.before)
    same_place = _iou(mask(case.found, task.rest), mask(found, task.rest)) >= SAME
    return same_place and _color(found, task.rest) == _color(case.found, task.rest)


def _color(found: Sequence[Detection], thing: object) -> str | None:
    return next((d.color for d in found if d.noun == getattr(thing, "noun", None)), None)


def _around(where: np.ndarray) -> np.ndarray:
    """The box of a mask, with the margin; nothing of nothing."""
    inside = np.zeros_like(where)
    if where.any():
        rows, columns = (np.flatnonzero(where.any(axis)) for axis in (1, 0))
        inside[
            max(rows[0] - MARGIN, 0) : rows[-1] + 1 + MARGIN,
            max(columns[0] - MARGIN, 0) : columns[-1] + 1 + MARGIN,
        ] = True
    return inside


def _confidence(task: Task, found: Sequence[Detection]) -> float:
    nouns = {thing.noun for thing in task.target}
    sure = [each.confidence for each in found if each.noun in nouns]
    return float(np.mean(sure)) if sure else _NAN


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def _decibels(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    """PSNR of pictures of 8 bits; NaN of nothing."""
    if not where.any():
        return _NAN
    error = max(float(np.square(one - other)[where].mean()), _ROUNDING)
    return float(10 * np.log10(255**2 / error))
