"""EBAMA (Zhang et al. 2024, arXiv 2404.07389): object-conditioned energy of attention maps.

    d(a, b)   = 1 - cosine similarity of two maps
    bind      = sum over modifiers m with noun n of   d(A_m, A_n) - mean over u of d(A_n, A_u)
                nouns without modifiers add                       - mean over u of d(A_n, A_u)
    intensity = - sum over nouns of   max over pixels of G * S_n
    L         = bind + weight * intensity                               weight 1/2

A: mean over heads and layers; S: softmax over tokens of 100 A, G: 3 x 3 Gaussian; u: the word
pieces of the prompt outside the subject. Pieces as in the official code: every piece of a modifier
counts, with the most distant piece of its noun; the intensity of a noun is that of its first piece.
A subject with no other word has no second term, where the official code divides by zero, and a noun
of several pieces with modifiers counts once, there once more without them. Constant
step size, 26 of 50 steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import SpatialMaps
from attncontrol.maps.functional import cosine_distances, sharpen, smooth
from attncontrol.maps.step import StepMaps, words_outside
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups


def ebama(
    maps: SpatialMaps,
    subjects: Sequence[Subject],
    outside: Sequence[Sequence[int]],
    contrast: Sequence[slice],
    *,
    weight: float = 0.5,
) -> Tensor:
    """The loss of one image; unbounded below only by the number of words."""
    distance = cosine_distances(maps)
    first = [subject.noun.positions[0] for subject in subjects]
    peaks = smooth(sharpen(maps[None], contrast)[0, ..., first].permute(2, 0, 1)).flatten(1).amax(1)
    loss = -weight * peaks.sum()
    for subject, others in zip(subjects, outside, strict=True):
        noun = list(subject.noun.positions)
        away = distance[noun][:, list(others)].amax(0).mean() if others else distance.new_zeros(())
        for modifier in subject.modifiers:
            loss = loss + distance[list(modifier.positions)][:, noun].amax(1).sum() - away
        if not subject.modifiers:
            loss = loss - away
    return loss


@dataclass(frozen=True)
class EBAMA(Objective):
    """Objective for ``steer``. ``words`` None: the nouns and their modifiers, by the parse."""

    words: Groups | None = None
    weight: float = 0.5
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, guided=0.52, thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        each = zip(maps.mean(), maps.subjects, words_outside(maps), maps.contrast, strict=True)
        return torch.stack([ebama(*of_image, weight=self.weight) for of_image in each])


def example() -> EBAMA:
    """For the prompt "a red cat and a frog"."""
    return EBAMA(words=[["red", "cat"], "frog"])
