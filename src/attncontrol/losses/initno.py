"""InitNO (Guo et al. 2024, arXiv 2404.04650): search for a noise, then excite every subject.

    cross     = max_s max(0, 1 - max P_s)                                        Attend-and-Excite
    conflict  = mean over pairs of   sum min(R_i, R_j) / sum (R_i + R_j),   0 if cross > 1/2
    clean     = sum_s max of P_s outside its part, where that exceeds the smallest P_s inside
    search    L = cross + conflict + clean   on the maps of the first step       ``NoiseSearch``
    guidance  L = cross

P_s: mean over the word's tokens of G * softmax over tokens of 100 A; R_s: self-attention of the
peak of P_s; its part: of its Otsu mask, with the peak; A, R: means over heads and layers, G: 3 x 3
Gaussian. Masks and peaks: no gradient. The search ends at L <= 1/2; officially at cross < 0.2 and
conflict < 0.3 (90 and 66 of 160 maps, 64 both), and conflict and past maps refine too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from attncontrol.axes import SelfMap, SpatialMaps
from attncontrol.maps.functional import of_words, overlap, second_peak, smooth
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.noise_search import NoiseSearch
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups


def excitation(maps: SpatialMaps, subjects: Sequence[Subject], contrast: Sequence[slice]) -> Tensor:
    """cross of one image."""
    words = of_words(maps, [subject.noun for subject in subjects], contrast)
    return (1 - words.flatten(1).max(1).values.min()).clamp(min=0)


def joint(
    maps: SpatialMaps, picture: SelfMap, subjects: Sequence[Subject], contrast: Sequence[slice]
) -> Tensor:
    """cross + conflict + clean of one image."""
    words = of_words(maps, [subject.noun for subject in subjects], contrast)
    cross = excitation(maps, subjects, contrast)
    rows = smooth(picture.flatten(0, 1))[words.flatten(1).argmax(1)]
    conflicts = [overlap(*pair) for pair in combinations(rows, 2)]
    conflict = torch.stack(conflicts).mean() if conflicts else maps.sum() * 0
    return cross + conflict * (cross <= 0.5) + sum(map(second_peak, words))


@dataclass(frozen=True)
class JointLoss(Objective):
    """Objective of the search. ``words`` None: the nouns of the prompt, by its parse."""

    words: Groups | None = None
    self_attention = True

    def __call__(self, maps: StepMaps) -> Tensor:
        each = zip(maps.mean(), maps.picture(), maps.subjects, maps.contrast, strict=True)
        return torch.stack([joint(*of_image) for of_image in each])


@dataclass(frozen=True)
class InitNO(Objective):
    """Objective for ``steer``, after a search. ``words`` as in ``JointLoss``."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(thresholds={0.2: 0.8, 0.4: 0.8}))

    @property
    def search(self) -> NoiseSearch:
        return NoiseSearch(JointLoss(self.words), target=0.5)

    def __call__(self, maps: StepMaps) -> Tensor:
        each = zip(maps.mean(), maps.subjects, maps.contrast, strict=True)
        return torch.stack([excitation(*of_image) for of_image in each])


def example() -> InitNO:
    """For the prompt "a red cat and a frog"."""
    return InitNO(words=["cat", "frog"])
