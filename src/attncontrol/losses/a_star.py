"""A-STAR (Agarwal et al. 2023, arXiv 2306.14544): subjects apart, in their places: L_seg + L_ret.

    L_seg = sum over pairs m < n of   sum min(A_m, A_n) / sum (A_m + A_n)       0 .. 1/2 each
    L_ret = sum over m of         1 - sum min(A_m, B_m) / sum (A_m + B_m)       1/2 .. 1 each

A_m: mean over heads and layers, summed over the word's tokens and divided by its maximum; B_m:
where A_m of the step before exceeds half its maximum. The paper leaves normalisation (without it
all of a mask is drawn to A = 1), threshold and step size open; there is no official code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from attncontrol.axes import SpatialMaps
from attncontrol.maps.functional import overlap, per_word
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective, several
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups


def segregation(maps: SpatialMaps, subjects: Sequence[Subject]) -> Tensor:
    """L_seg of one image; 0 for a single subject."""
    pairs = combinations(per_word(maps, [subject.noun for subject in subjects]), 2)
    return sum((overlap(*pair) for pair in pairs), start=maps.sum() * 0)


def retention(maps: SpatialMaps, previous: SpatialMaps, subjects: Sequence[Subject]) -> Tensor:
    """L_ret of one image."""
    now, before = (per_word(each, [s.noun for s in subjects]) for each in (maps, previous))
    pairs = zip(now, [(word > 0.5).to(word) for word in before], strict=True)
    return sum((1 - overlap(*pair) for pair in pairs), start=maps.sum() * 0)


@dataclass(frozen=True)
class Segregation(Objective):
    """Objective for ``steer``: L_seg. ``words`` None: the nouns of the prompt, by its parse."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, thresholds={}))
    acts = several

    def __call__(self, maps: StepMaps) -> Tensor:
        return torch.stack(list(map(segregation, maps.mean(), maps.subjects)))


@dataclass(frozen=True)
class Retention(Objective):
    """Objective for ``steer``: L_ret; 0 in the first step. ``words`` as in ``Segregation``."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, thresholds={}))
    remembers = True

    def __call__(self, maps: StepMaps) -> Tensor:
        if maps.previous is None:
            return maps.mean().flatten(1).sum(1) * 0
        return torch.stack(list(map(retention, maps.mean(), maps.previous, maps.subjects)))


@dataclass(frozen=True)
class AStar(Objective):
    """Objective for ``steer``: L_seg + L_ret. ``words`` as in ``Segregation``."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, thresholds={}))
    remembers = True

    def __call__(self, maps: StepMaps) -> Tensor:
        return Segregation(self.words)(maps) + Retention(self.words)(maps)


def example() -> AStar:
    """For the prompt "a red cat and a frog"."""
    return AStar(words=["cat", "frog"])
