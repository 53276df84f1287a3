"""BoxDiff (Xie et al. 2023, arXiv 2307.10816): the map of a word is strong inside its box, weak
outside, and touches its sides.

    P          = G * S of each token; M: its box; top_k: mean of the k largest values
    inner      = 1 - top_k(P M),                    k = 1/5 of the cells of M
    outer      = top_k(P (1 - M)),                  k = 1/5 of the other cells
    corner     = mean over columns near the left or right side of M of |max P - max M|, and of rows
    L          = sum over tokens of inner + outer + corner

S: softmax over tokens of 100 A, G: 3 x 3 Gaussian, A: mean over heads and layers; near: within one
cell of the first inside, or of the first behind it. As in the official code corner terms are means
over the whole axis. k is at least 1, boxes are fractions of the picture and cover a cell by more
than half: the official code divides by zero for boxes of fewer than 5 cells, knows 512 px only, and
rounds each side (11 of 60 boxes differ). It refines the inner term alone, at three steps down to
thresholds; here the whole loss is, three times in each of the first ten of 50 steps: places better.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import Area, PixelMap, SpatialMaps
from attncontrol.maps.functional import sharpen, smooth
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import masks_like
from attncontrol.objectives.descent import Descent, early
from attncontrol.objectives.objective import OfLayout
from attncontrol.prompts.tokens import Subject


def _top(values: Tensor) -> Tensor:
    """Mean of the largest fifth; 0 of none."""
    count = max(1, values.numel() // 5)
    return values.topk(count).values.mean() if values.numel() else values.sum()


def _near_ends(line: Tensor) -> Tensor:
    """Cells of an axis within one of the first True one, or of the one after the last."""
    inside = line.nonzero()[:, 0]
    index = torch.arange(len(line), device=line.device)
    return ((index - inside[0]).abs() <= 1) | ((index - inside[-1] - 1).abs() <= 1)


def box_loss(image: PixelMap, mask: Area) -> Tensor:
    """inner + outer + corner of one map."""
    loss = 1 - _top(image[mask]) + _top(image[~mask])
    for axis in (0, 1):
        box = mask.any(axis)
        loss = loss + ((image.amax(axis) - box.to(image)).abs() * _near_ends(box)).mean()
    return loss


def boxdiff(
    maps: SpatialMaps, subjects: Sequence[Subject], masks: Sequence[Area], parts: Sequence[slice]
) -> Tensor:
    """The loss of one image."""
    sharp = smooth(sharpen(maps[None], parts)[0].permute(2, 0, 1))
    pairs = zip(subjects, masks, strict=True)
    losses = [box_loss(sharp[p], mask) for subject, mask in pairs for p in subject.positions]
    return torch.stack(losses).sum()


@dataclass(frozen=True)
class BoxDiff(OfLayout):
    """Objective for ``steer``; ``layout`` as in ``OfLayout``."""

    descent: Descent = field(default_factory=lambda: Descent(thresholds=early(), max_refinements=3))

    def __call__(self, maps: StepMaps) -> Tensor:
        mean = maps.mean()
        masks = masks_like(self.layout, mean, maps.prompts)
        each = zip(mean, maps.subjects, masks, maps.contrast, strict=True)
        return torch.stack([boxdiff(*of_image) for of_image in each])


def example() -> BoxDiff:
    """For the prompt "a red cat and a frog"."""
    return BoxDiff({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
