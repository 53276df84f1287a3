"""Attention refocusing (Phung et al. 2023, arXiv 2306.05427): words and cells look at their own
boxes.

    P         = G * softmax over tokens of 100 A, of each token of the q words with a box M_i
    CAR       = 1/q sum_i (1 - max(P_i M_i))   +   1/q sum_i max(P_i (1 - M_i))
    SAR       = 1/q sum_i sum over cells p of M_i of   sum(S_p (1 - M_i)) / sum(1 - M_i)
    L         = CAR + SAR

G: 3 x 3 Gaussian; A, S_p (self-attention of cell p): means over heads and layers; S_p sums to 1.
The paper is followed; the official code weighs the terms by thresholds and steps, means over cells
instead of the sum, does not divide by sum(1 - M_i), and adds an unpublished term on GLIGEN's
tokens. Three refinements in each of the first ten of 50 steps, one step in each until the 25th; the
official code takes two to six, stops at maxima of 0.2 inside, goes on at 10, 15, 20, 25, 30 and 35,
and steps by 4, then 3 times its gradient; the step of 20 here goes 1 to 4 times as far. Each token
of a word counts by itself. A box that covers the whole picture has no outside: that part of CAR,
and SAR, are 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import Area, SelfMap, SpatialMaps
from attncontrol.maps.functional import sharpen, smooth
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import masks_like
from attncontrol.objectives.descent import Descent, early
from attncontrol.objectives.objective import OfLayout
from attncontrol.prompts.tokens import Subject


def cross_refocusing(
    maps: SpatialMaps,
    subjects: Sequence[Subject],
    masks: Sequence[Area],
    contrast: Sequence[slice],
) -> Tensor:
    """CAR of one image."""
    sharp = smooth(sharpen(maps[None], contrast)[0].permute(2, 0, 1))
    terms = []
    for subject, mask in zip(subjects, masks, strict=True):
        for position in subject.positions:
            image = sharp[position]
            terms.append(1 - image[mask].max() + (image * ~mask).max())
    return torch.stack(terms).mean()


def self_refocusing(picture: SelfMap, masks: Sequence[Area]) -> Tensor:
    """SAR of one image."""
    terms = [picture[mask][:, ~mask].sum() / (~mask).sum().clamp(min=1) for mask in masks]
    return torch.stack(terms).mean()


@dataclass(frozen=True)
class AttentionRefocusing(OfLayout):
    """Objective for ``steer``; ``layout`` as in ``OfLayout``, ``weight`` is that of SAR."""

    weight: float = 1.0
    descent: Descent = field(
        default_factory=lambda: Descent(final=1.0, thresholds=early(), max_refinements=3)
    )
    self_attention = True

    def __call__(self, maps: StepMaps) -> Tensor:
        mean, picture = maps.mean(), maps.picture()
        of_words, of_cells = (masks_like(self.layout, of, maps.prompts) for of in (mean, picture))
        losses = []
        for i, (image, own) in enumerate(zip(mean, picture, strict=True)):
            cross = cross_refocusing(image, maps.subjects[i], of_words[i], maps.contrast[i])
            losses.append(cross + self.weight * self_refocusing(own, of_cells[i]))
        return torch.stack(losses)


def example() -> AttentionRefocusing:
    """For the prompt "a red cat and a frog"."""
    return AttentionRefocusing({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
