"""PartCraft's attention loss (Ng et al. 2024, arXiv 2407.04604) at test time: at every cell one of
the words wins, by masks.

    share_m   = A_m / sum over words m' of A_m'                at every cell
    L         = mean over words and cells of   -(M_m log share_m + (1 - M_m) log(1 - share_m))

M_m: mask of the word, A: mean over heads and layers.

A training loss in the paper (parts of birds, masks by clustering), used here as an objective on the
latents. A_m sums over the tokens of the word; the sum over words is at least 1e-6 and the shares
are kept 1e-6 away from 0 and 1, where the official code clamps the logarithm. Cells of no mask
count as outside of all: give masks that cover the picture, or a word for the background.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.axes import Area, SpatialMaps
from attncontrol.maps.functional import summed
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import masks_like
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import OfLayout, several
from attncontrol.prompts.tokens import Subject


def partcraft(maps: SpatialMaps, subjects: Sequence[Subject], masks: Sequence[Area]) -> Tensor:
    """The loss of one image."""
    words = torch.stack(summed(maps, subjects))
    shares = words / words.sum(0, keepdim=True).clamp(min=1e-6)
    return F.binary_cross_entropy(shares.clamp(1e-6, 1 - 1e-6), torch.stack(list(masks)).to(shares))


@dataclass(frozen=True)
class PartCraft(OfLayout):
    """Objective for ``steer``; ``layout`` as in ``OfLayout``."""

    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))
    acts = several

    def __call__(self, maps: StepMaps) -> Tensor:
        mean = maps.mean()
        masks = masks_like(self.layout, mean, maps.prompts)
        return torch.stack(
            [partcraft(*of_image) for of_image in zip(mean, maps.subjects, masks, strict=True)]
        )


def example() -> PartCraft:
    """For the prompt "a red cat and a frog"."""
    return PartCraft({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
