"""Placement: the map of a word lies inside its box and balances in the box's middle.

    c = sum over cells of A^2 (x, y) / sum A^2
    L = layout guidance + 2 * mean over words of |c - middle of the box|^2              in fractions of the picture

A: mean over heads and layers, summed over the word's tokens. Layout guidance (Chen et al. 2023,
arXiv 2304.03373) alone is content with a map anywhere inside a box. The second term is the centroid
of self-guidance (Epstein et al. 2023, arXiv 2306.00986) of the squared map, in which the faint
attention of the background, whose centroid is the middle of the picture, hardly counts.

Of no paper; measured to place better than its parts (README, "Boxes"). A gradient step in each of
the first half of the steps, four in those of the first fifth.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import SpatialMaps
from attncontrol.losses.layout_guidance import LayoutGuidance
from attncontrol.maps.functional import centroid
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import Layouts, middles_like
from attncontrol.objectives.descent import Descent, early
from attncontrol.objectives.objective import OfLayout, Sum
from attncontrol.prompts.tokens import Subject


def centering(mean: SpatialMaps, subjects: Sequence[Subject], places: Iterable[Tensor]) -> Tensor:
    """Mean over the words of one image of |c - place|^2."""
    centres = [
        centroid(mean[..., list(subject.positions)].sum(-1).square()) for subject in subjects
    ]
    return torch.stack(
        [(c - place).square().sum() for c, place in zip(centres, places, strict=True)]
    ).mean()


@dataclass(frozen=True)
class Centering(OfLayout):
    """Objective for ``steer``: the second term, unweighted; ``layout`` as in
    ``compose.OfLayout``."""

    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        mean = maps.mean()
        each = zip(mean, maps.subjects, middles_like(self.layout, mean, maps.prompts), strict=True)
        return torch.stack([centering(*of_image) for of_image in each])


def placement(layout: Layouts) -> Sum:
    """Both terms."""
    schedule = Descent(final=1.0, guided=0.52, thresholds=early(), max_refinements=3)
    return LayoutGuidance(layout, schedule) + 2.0 * Centering(layout)


def example() -> Centering:
    """For the prompt "a red cat and a frog"."""
    return Centering({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
