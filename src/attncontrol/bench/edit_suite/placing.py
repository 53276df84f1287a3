"""Boxes: of what changes, and methods that put things into them, of the kind ``regions``: edits and
objectives for the cases of a batch, whose numbers are those of the images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attncontrol.attention.edit import Edit
from attncontrol.attention.regions import Box
from attncontrol.attention.sites import Where
from attncontrol.bench.edit_suite.sources import Case, mask
from attncontrol.edits.bounded_attention import BoundedAttention
from attncontrol.edits.dense_diffusion import DenseDiffusion
from attncontrol.edits.regions import Regions
from attncontrol.losses.bounded_guidance import BoundedGuidance
from attncontrol.losses.placement import Placement
from attncontrol.sprites.scenes import SIZE, caption

_MARGIN = 4  # pixels around what the scorer finds

REFINE = Where(kind=("self", "cross"), layers=("up_blocks.0.attentions.1",))
"""The first layer of the UNet that localises words."""


def dense(cases: Sequence[Case], cross: float | None) -> tuple[Edit, ...]:
    more: dict[str, Any] = {} if cross is None else {"cross": cross}
    return tuple(
        DenseDiffusion(dict(_phrases(case).items()), images=(image,), **more)
        for image, case in enumerate(cases)
    )


def regions(cases: Sequence[Case], base: float | None) -> tuple[Edit, ...]:
    more: dict[str, Any] = {} if base is None else {"base": base}
    return tuple(Regions(_texts(case), images=(image,), **more) for image, case in enumerate(cases))


def bounded(cases: Sequence[Case], refine: Where | None = None) -> tuple[Edit, ...]:
    return tuple(
        BoundedAttention(dict(_phrases(case).items()), images=(image,), refine=refine)
        for image, case in enumerate(cases)
    )


def guided(cases: Sequence[Case]) -> BoundedGuidance:
    return BoundedGuidance({case.task.prompt: _phrases(case) for case in cases})


def placement(cases: Sequence[Case]) -> Placement:
    return Placement({case.task.prompt: _phrases(case) for case in cases})


def _texts(case: Case) -> dict[str, Box]:
    return {caption((thing,))[0]: case.task.boxes[thing.noun] for thing in case.task.target}


def _phrases(case: Case) -> dict[str, Box]:
    """Every thing with its colour: "red cat"."""
    return {f"{t.color} {t.noun}": case.task.boxes[t.noun] for t in case.task.target}


def around(case: Case) -> Box:
    """What a user would draw around the thing that changes in the source; where a new one is to
    be, if that is told, else around the half of the picture that has more room."""
    inside = _changing(case).nonzero()
    top, left = (max(int(axis.min()) - _MARGIN, 0) / SIZE for axis in inside)
    bottom, right = (min(int(axis.max()) + 1 + _MARGIN, SIZE) / SIZE for axis in inside)
    return left, top, right, bottom


def _changing(case: Case) -> np.ndarray:
    if case.task.before is not None:
        return mask(case.found, case.task.before)
    if case.spot is not None:
        return case.spot
    centres = [left + width / 2 for left, _, width, _ in (each.box for each in case.found)]
    there = np.mean(centres) if centres else 0.0
    free = np.zeros((SIZE, SIZE), bool)
    free[:, SIZE // 2 :] = there < SIZE / 2
    free[:, : SIZE // 2] = there >= SIZE / 2
    return free
