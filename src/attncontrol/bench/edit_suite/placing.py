"""Methods that put things into boxes, of the kind ``regions``: edits and objectives for the cases
of a batch, whose numbers are those of the images."""

from collections.abc import Sequence
from typing import Any

from attncontrol.attention.edit import Edit
from attncontrol.attention.regions import Box
from attncontrol.attention.sites import Where
from attncontrol.bench.edit_suite.sources import Case
from attncontrol.edits.bounded_attention import BoundedAttention
from attncontrol.edits.dense_diffusion import DenseDiffusion
from attncontrol.edits.regions import Regions
from attncontrol.losses.bounded_guidance import BoundedGuidance
from attncontrol.losses.placement import Placement
from attncontrol.sprites.scenes import caption

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
