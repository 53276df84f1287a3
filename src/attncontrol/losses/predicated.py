"""Predicated Diffusion (Sueyoshi and Matsubara 2024, arXiv 2311.16117): propositions about words in
product fuzzy logic.

    cost(truth)    = -log of the geometric mean over x      A_s(x) in 0 .. 1: word s is at x
    exists(s)      = cost(1 - exp(-cost(1 - A_s)))          there is an x with s(x)
    implies(s, t)  = cost(1 - A_s (1 - A_t))                wherever s is, t is
    excludes(s, t) = cost(1 - A_s A_t)                      wherever s is, t is not
    L = existence * mean over nouns n of exists(n)
        + mean over nouns n with a modifier m of implies(n, m) + implies(m, n)
        + alpha * mean over nouns n and modifiers m of other nouns of excludes(n, m)

As in the authors' code A has range 0 .. 1, but in exists it is the softmax over tokens of 100 A;
truths below 1e-6 count as 1e-6 (in exists 1e-4 is added there: 2 % of the gradient). The paper has
no weights, and multiplies over pixels, so that the grid matters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import torch
from torch import Tensor

from attncontrol.axes import PixelMap, SpatialMaps
from attncontrol.maps.functional import sharpen, unit_range
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.tokens import Span, Subject
from attncontrol.prompts.words import Groups


def cost(truth: Tensor) -> Tensor:
    """-log of the geometric mean over x."""
    return -truth.clamp(min=1e-6).log().mean()


def predicated(
    maps: SpatialMaps,
    subjects: Sequence[Subject],
    contrast: Sequence[slice],
    existence: float = 0.1,
    alpha: float = 0.3,
) -> Tensor:
    """The loss of one image."""

    def ranged(span: Span) -> PixelMap:
        return unit_range(maps[..., list(span.positions)].mean(-1))

    def mean(costs: Iterable[Tensor]) -> Tensor:
        return torch.stack(listed).mean() if (listed := list(costs)) else maps.sum() * 0

    sharp = sharpen(maps[None], contrast)[0]
    nouns = [ranged(subject.noun) for subject in subjects]
    modifiers = [[ranged(modifier) for modifier in subject.modifiers] for subject in subjects]
    pieces = [sharp[..., p] for subject in subjects for p in subject.noun.positions]
    own = [(noun, m) for noun, of in zip(nouns, modifiers, strict=True) for m in of]
    other = [(nouns[i], m) for i, j in permutations(range(len(subjects)), 2) for m in modifiers[j]]
    present = mean(cost(1 - (-cost(1 - s)).exp()) for s in pieces)
    bound = mean(cost(1 - n * (1 - m)) + cost(1 - m * (1 - n)) for n, m in own)
    return existence * present + bound + alpha * mean(cost(1 - n * m) for n, m in other)


@dataclass(frozen=True)
class Predicated(Objective):
    """Objective for ``steer``. ``words`` None: the nouns and their modifiers, by the parse."""

    words: Groups | None = None
    existence: float = 0.1
    alpha: float = 0.3
    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        each = zip(maps.mean(), maps.subjects, maps.contrast, strict=True)
        return torch.stack([predicated(*of, self.existence, self.alpha) for of in each])


def example() -> Predicated:
    """For the prompt "a red cat and a frog"."""
    return Predicated(words=[["red", "cat"], "frog"])
