"""Diffusion self-guidance (Epstein et al. 2023, arXiv 2306.00986): place and size of what a word
names.

    norm(A)     = (A - min A) / (max A - min A)
    shape       = norm(sigmoid(s (norm(A) - 1/2)))             s = 10
    size        = mean of shape                                in 0 .. 1
    centroid    = sum over cells of A (x, y) / sum A           in fractions of the picture
    L           = sum over words of |property - target|        of both coordinates of the centroid

A: mean over heads and layers, summed over the tokens of the word. The paper takes targets from the
original run of the same seed: record it and shift what ``functional.centroid`` and ``size`` say of
its maps, or see ``rearrange``, which compares within a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import SpatialMaps
from attncontrol.errors import SettingError
from attncontrol.maps.functional import centroid, size, summed
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.tokens import Subject


def self_guidance(
    mean: SpatialMaps,
    subjects: Sequence[Subject],
    centers: Sequence[Tensor],
    sizes: Sequence[Tensor],
) -> Tensor:
    """The loss of one image: the first words by their ``centers``, the rest by their ``sizes``."""
    words = summed(mean, subjects)
    placed, sized = words[: len(centers)], words[len(centers) :]
    terms = [centroid(word) - center for word, center in zip(placed, centers, strict=True)]
    terms += [(size(word) - share)[None] for word, share in zip(sized, sizes, strict=True)]
    return torch.cat(terms).abs().sum()


@dataclass(frozen=True)
class SelfGuidance(Objective):
    """Objective for ``steer``: ``centers`` maps words to (x, y), ``sizes`` to shares of the
    picture, all in 0 .. 1."""

    centers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Mapping[str, float] = field(default_factory=dict)
    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))

    def __post_init__(self) -> None:
        super().__post_init__()
        values = [*self.sizes.values(), *(v for center in self.centers.values() for v in center)]
        if not values or not all(0 <= value <= 1 for value in values):
            raise SettingError(
                "centers and sizes are fractions of the picture between 0 and 1, at least one, "
                f"not {values}"
            )

    @property
    def words(self) -> list[str]:
        return [*self.centers, *self.sizes]

    def __call__(self, maps: StepMaps) -> Tensor:
        mean = maps.mean()
        targets = [
            [mean.new_tensor(target) for target in of_words.values()]
            for of_words in (self.centers, self.sizes)
        ]
        each = zip(mean, maps.subjects, strict=True)
        return torch.stack([self_guidance(*of_image, *targets) for of_image in each])


def example() -> SelfGuidance:
    """For the prompt "a red cat and a frog"."""
    return SelfGuidance(centers={"cat": (0.25, 0.5)}, sizes={"frog": 0.1})
