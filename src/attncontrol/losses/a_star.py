"""A-STAR (Agarwal et al. 2023, arXiv 2306.14544): subjects do not overlap, and keep the places they
had in the step before.

    segregation   L_seg = sum over pairs m < n of   sum min(A_m, A_n) / sum (A_m + A_n)            in 0 .. 1/2 for each pair
    retention     L_ret = sum over m of         1 - sum min(A_m, B_m) / sum (A_m + B_m)            in 1/2 .. 1 for each subject
    L = L_seg + L_ret

A_m: mean over heads and layers, summed over the word's tokens and divided by its maximum; B_m:
where A_m of the step before exceeds half its maximum. The paper leaves this normalisation, the
threshold and the step size open, and there is no official code. Raw probabilities near 0.1 would
put the minimum of L_ret at A = 1 everywhere inside the mask. ``a_star`` is the sum of both
objectives.
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
from attncontrol.objectives.objective import Sum, Summable
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups

SCHEDULE = Descent(final=1.0, thresholds={})


def segregation(maps: SpatialMaps, subjects: Sequence[Subject]) -> Tensor:
    """L_seg of one image; 0 for a single subject."""
    words = per_word(maps, [subject.noun for subject in subjects])
    return sum((overlap(a, b) for a, b in combinations(words, 2)), start=maps.sum() * 0)


def retention(maps: SpatialMaps, previous: SpatialMaps, subjects: Sequence[Subject]) -> Tensor:
    """L_ret of one image."""
    spans = [subject.noun for subject in subjects]
    pairs = zip(per_word(maps, spans), per_word(previous, spans), strict=True)
    return sum(
        (1 - overlap(now, (before > 0.5).to(now)) for now, before in pairs), start=maps.sum() * 0
    )


@dataclass(frozen=True)
class Segregation(Summable):
    """Objective for ``steer``: L_seg. ``words`` None means the nouns of the prompt."""

    words: Groups | None = None
    descent: Descent = field(default=SCHEDULE)

    def __call__(self, maps: StepMaps) -> Tensor:
        return torch.stack(
            [segregation(image, of) for image, of in zip(maps.mean(), maps.subjects, strict=True)]
        )


@dataclass(frozen=True)
class Retention(Summable):
    """Objective for ``steer``: L_ret; zero in the first step. ``words`` None means the nouns of the
    prompt."""

    words: Groups | None = None
    descent: Descent = field(default=SCHEDULE)
    remembers = True

    def __call__(self, maps: StepMaps) -> Tensor:
        mean = maps.mean()
        if maps.previous is None:
            return mean.flatten(1).sum(1) * 0
        return torch.stack(
            [retention(*each) for each in zip(mean, maps.previous, maps.subjects, strict=True)]
        )


def a_star(words: Groups | None = None) -> Sum:
    """Both terms, unweighted, as in the paper."""
    return Segregation(words) + Retention(words)


def example() -> Retention:
    """For the prompt "a red cat and a frog"."""
    return Retention(words=["cat", "frog"])
