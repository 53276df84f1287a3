"""Placement: the map of a word lies inside its box and balances in the box's middle.

    c = sum over cells of A^2 (x, y) / sum A^2
    L = layout guidance + 2 * mean over words of |c - middle of the box|^2

A: mean over heads and layers, summed over the word's tokens; (x, y) in fractions of the picture.
Layout guidance (Chen et al. 2023, arXiv 2304.03373) alone is content with a map anywhere inside a
box. The second term is the centroid of self-guidance (Epstein et al. 2023, arXiv 2306.00986) of the
squared map, in which the faint attention of the background, whose centroid is the middle of the
picture, hardly counts.

Of no paper; measured to place better than its parts (bench/README.md, "Boxes"). A gradient step in
each of the first half of the steps, four in those of the first fifth.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import SpatialMaps
from attncontrol.losses.layout_guidance import LayoutGuidance
from attncontrol.maps.functional import centroid, summed
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import middles_like
from attncontrol.objectives.descent import Descent, early
from attncontrol.objectives.objective import OfLayout
from attncontrol.prompts.tokens import Subject


def centering(mean: SpatialMaps, subjects: Sequence[Subject], places: Iterable[Tensor]) -> Tensor:
    """Mean over the words of one image of |c - place|^2."""
    centres = (centroid(word.square()) for word in summed(mean, subjects))
    each = [(c - place).square().sum() for c, place in zip(centres, places, strict=True)]
    return torch.stack(each).mean()


@dataclass(frozen=True)
class Centering(OfLayout):
    """Objective for ``steer``: the second term, unweighted; ``layout`` as in ``OfLayout``."""

    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        mean = maps.mean()
        each = zip(mean, maps.subjects, middles_like(self.layout, mean, maps.prompts), strict=True)
        return torch.stack([centering(*of_image) for of_image in each])


@dataclass(frozen=True)
class Placement(OfLayout):
    """Objective for ``steer``: L; ``layout`` as in ``OfLayout``."""

    descent: Descent = field(
        default_factory=lambda: Descent(
            final=1.0, guided=0.52, thresholds=early(), max_refinements=3
        )
    )

    def __call__(self, maps: StepMaps) -> Tensor:
        return LayoutGuidance(self.layout)(maps) + 2.0 * Centering(self.layout)(maps)


def example() -> Placement:
    """For the prompt "a red cat and a frog"."""
    return Placement({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
