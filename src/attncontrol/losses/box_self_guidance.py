"""Self-guidance (Epstein et al. 2023, arXiv 2306.00986) by boxes.

    L = sum over words of   |centroid - middle of the box|  (both coordinates)  +  |size - share|

Centroid and size of the map of a word as in ``self_guidance``; share: of the picture, which the box
covers. The paper moves and scales words relative to a picture of the same seed.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.losses.self_guidance import self_guidance
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import middles_like, sizes_like
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import OfLayout


@dataclass(frozen=True)
class BoxSelfGuidance(OfLayout):
    """Objective for ``steer``; ``layout`` as in ``OfLayout``."""

    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        mean = maps.mean()
        targets = (of(self.layout, mean, maps.prompts) for of in (middles_like, sizes_like))
        twice = [(*subjects, *subjects) for subjects in maps.subjects]
        each = zip(mean, twice, *targets, strict=True)
        return torch.stack([self_guidance(*of_image) for of_image in each])


def example() -> BoxSelfGuidance:
    """For the prompt "a red cat and a frog"."""
    return BoxSelfGuidance({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
