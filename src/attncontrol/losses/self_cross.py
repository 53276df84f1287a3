"""Self-Cross guidance (Qiu et al. 2024, arXiv 2411.18936): cells that show one subject do not look
where another one is.

    P_i       = G * S of the word, divided by its sum
    R_i       = sum over cells p of O_i of   P_i(p) G * S_p,   divided by its sum
    L         = mean over pairs i < j of   sum min(R_i, P_j) + sum min(R_j, P_i)        in 0 .. 2

S: softmax over tokens of 100 A, G: 3 x 3 Gaussian, S_p: self-attention of cell p, O_i: Otsu mask of
P_i; A, S_p: means over heads and layers. The paper is followed; the official code takes half of it,
normalises P only on grids finer than 16, and adds a loss that excites the subjects, here
``AttendAndExcite() + SelfCross()``. It also leaves L out while that loss is above 1/2, refines at
steps 10 and 20 of 50, and guides 40 steps with Stable Diffusion 2.1; here L always counts, there is
no refinement, and 25 steps are guided. Otsu's threshold is exact (officially of 256 bins: value 4 %
off) and carries no gradient; a word of several tokens has the mean of their maps. Zero for a single
subject.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

import torch
from torch import Tensor

from attncontrol.axes import SelfMap, SpatialMaps
from attncontrol.losses.attend_and_excite import AttendAndExcite
from attncontrol.maps.functional import of_words, otsu, smooth
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective, several
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups


def self_cross(
    maps: SpatialMaps, picture: SelfMap, subjects: Sequence[Subject], contrast: Sequence[slice]
) -> Tensor:
    """The loss of one image."""
    words = of_words(maps, [subject.noun for subject in subjects], contrast)
    words = words / words.sum((1, 2), keepdim=True).clamp(min=1e-12)
    rows = smooth(picture.flatten(0, 1)).flatten(1)  # cell -> where it looks
    seen = (words * otsu(words)).flatten(1) @ rows
    seen = seen / seen.sum(1, keepdim=True).clamp(min=1e-12)
    shared = [
        torch.minimum(seen[i], words[j].flatten()).sum()
        for i, j in permutations(range(len(words)), 2)
    ]
    return 2 * torch.stack(shared).mean() if shared else maps.sum() * 0


@dataclass(frozen=True)
class SelfCross(Objective):
    """Objective for ``steer``. ``words`` None: the nouns of the prompt, by its parse."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))
    self_attention = True
    acts = several

    def __call__(self, maps: StepMaps) -> Tensor:
        each = zip(maps.mean(), maps.picture(), maps.subjects, maps.contrast, strict=True)
        return torch.stack([self_cross(*of_image) for of_image in each])


def method(words: Groups | None) -> Objective:
    """As ``--method self-cross``: with a loss that excites the subjects, as in the official
    code."""
    return AttendAndExcite(words) + SelfCross(words)


def example() -> SelfCross:
    """For the prompt "a red cat and a frog"."""
    return SelfCross(words=["cat", "frog"])
