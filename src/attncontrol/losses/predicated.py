"""Predicated Diffusion (Sueyoshi and Matsubara 2024, arXiv 2311.16117): propositions about words in
product fuzzy logic.

A(x) in [0, 1] is the truth of "the word is at x". Each proposition P costs -log P:

    exists(s)          there is an x with s(x)                 1 - product over x of (1 - A_s)
    implies(s, t)      wherever s is, t is                      product over x of 1 - A_s (1 - A_t)
    excludes(s, t)     wherever s is, t is not                  product over x of 1 - A_s A_t
    modifies           implies both ways, for a modifier and its noun
    one to one         plus ``alpha`` = 0.3 times: each noun excludes the modifiers of the other nouns

The loss is the mean cost of existence plus the mean cost of the others over pairs. As in the
authors' code, products over pixels are replaced by geometric means (the grid must not matter) and
the maps of all but existence by their range [0, 1]; existence takes the softmax over tokens of 100
A, with weight 0.1; truths below 1e-6 count as 1e-6. The paper multiplies over pixels, unweighted.
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
from attncontrol.objectives.objective import Summable
from attncontrol.prompts.tokens import Span, Subject
from attncontrol.prompts.words import Groups

_SMALL = 1e-6


def exists(s: PixelMap) -> Tensor:
    """-log(1 - geometric mean over x of (1 - s))."""
    return -(1 - (1 - s).clamp(min=_SMALL).log().mean().exp()).clamp(min=_SMALL).log()


def implies(s: PixelMap, t: PixelMap) -> Tensor:
    """-log of the geometric mean over x of 1 - s (1 - t)."""
    return -(1 - s * (1 - t)).clamp(min=_SMALL).log().mean()


def excludes(s: PixelMap, t: PixelMap) -> Tensor:
    """-log of the geometric mean over x of 1 - s t."""
    return -(1 - s * t).clamp(min=_SMALL).log().mean()


def _mean(costs: Iterable[Tensor], zero: Tensor) -> Tensor:
    listed = list(costs)
    return torch.stack(listed).mean() if listed else zero


def predicated(
    maps: SpatialMaps,
    subjects: Sequence[Subject],
    contrast: Sequence[slice],
    *,
    existence: float = 0.1,
    alpha: float = 0.3,
) -> Tensor:
    """The loss of one image."""
    sharp, zero = sharpen(maps[None], contrast)[0], maps.sum() * 0

    def ranged(span: Span) -> PixelMap:
        return unit_range(maps[..., list(span.positions)].mean(-1))

    nouns = [ranged(subject.noun) for subject in subjects]
    modifiers = [[ranged(modifier) for modifier in subject.modifiers] for subject in subjects]
    present = _mean(
        (exists(sharp[..., p]) for subject in subjects for p in subject.noun.positions), zero
    )
    own = [(noun, m) for noun, of in zip(nouns, modifiers, strict=True) for m in of]
    other = [(nouns[i], m) for i, j in permutations(range(len(subjects)), 2) for m in modifiers[j]]
    bound = _mean((implies(noun, m) + implies(m, noun) for noun, m in own), zero)
    leaked = _mean((excludes(noun, m) for noun, m in other), zero)
    return existence * present + bound + alpha * leaked


@dataclass(frozen=True)
class Predicated(Summable):
    """Objective for ``steer``. ``words`` None means the nouns of the prompt with their
    modifiers."""

    words: Groups | None = None
    existence: float = 0.1
    alpha: float = 0.3
    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        each = zip(maps.mean(), maps.subjects, maps.contrast, strict=True)
        return torch.stack(
            [predicated(*of_image, existence=self.existence, alpha=self.alpha) for of_image in each]
        )


def example() -> Predicated:
    """For the prompt "a red cat and a frog"."""
    return Predicated(words=[["red", "cat"], "frog"])
