"""Diffusion self-guidance (Epstein et al. 2023, arXiv 2306.00986): place and size of what a word
names.

    norm(A)     = (A - min A) / (max A - min A)
    shape       = norm(sigmoid(s (norm(A) - 1/2)))                                       s = 10
    size        = mean of shape                                                          in 0 .. 1
    centroid    = sum over cells of A (x, y) / sum A                                     cell centres in fractions of the picture
    L           = sum over words of  |property - target|                                 (for the centroid of both coordinates)

A: mean over heads and layers, summed over the tokens of the word. The paper takes targets from the
original run of the same seed: record it and shift what ``functional.centroid`` and ``size`` say of
its maps, or see ``rearrange``, which compares within a batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.maps.functional import centroid, size
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Summable


@dataclass(frozen=True)
class SelfGuidance(Summable):
    """Objective for ``steer``: ``centers`` maps words to (x, y), ``sizes`` to shares of the
    picture, all in 0 .. 1."""

    centers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))

    def __post_init__(self) -> None:
        values = [*self.sizes.values(), *(v for center in self.centers.values() for v in center)]
        if not values or not all(0 <= value <= 1 for value in values):
            raise ValueError(
                f"centers and sizes are fractions of the picture between 0 and 1, at least one, not {values}"
            )

    @property
    def words(self) -> list[str]:
        return [*self.centers, *self.sizes]

    def __call__(self, maps: StepMaps) -> Tensor:
        losses = []
        for image, subjects in zip(maps.mean(), maps.subjects, strict=True):
            words = [image[..., list(subject.positions)].sum(-1) for subject in subjects]
            places, rest = words[: len(self.centers)], words[len(self.centers) :]
            terms = [
                centroid(w) - w.new_tensor(c)
                for w, c in zip(places, self.centers.values(), strict=True)
            ]
            terms += [(size(w) - s)[None] for w, s in zip(rest, self.sizes.values(), strict=True)]
            losses.append(torch.cat(terms).abs().sum())
        return torch.stack(losses)


def example() -> SelfGuidance:
    """For the prompt "a red cat and a frog"."""
    return SelfGuidance(centers={"cat": (0.25, 0.5)}, sizes={"frog": 0.1})
