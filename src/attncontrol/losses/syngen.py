"""SynGen, linguistic binding (Rassin et al. 2023, arXiv 2306.08877): maps of a noun and its
modifiers overlap, others do not.

    d(a, b)    = (KL(a || b) + KL(b || a)) / 2      of maps divided by their sum
    pos(n, m)  = d(A_m, A_n)
    neg(n, m)  = -(mean over u of d(A_n, A_u) + mean over u of d(A_m, A_u)) / 2
    L          = sum over subjects, over their modifiers m with noun n, of pos + neg

A: mean over heads and layers, no softmax over tokens, no smoothing. u runs over all word pieces of
the prompt outside the subject, "a" and punctuation included. Of words of several pieces the worst
pair counts (maximum over pieces). As in the official code, nouns without modifiers are left out
unless ``entities`` is set; then they add -mean over u of d(A_n, A_u). The official code reuses the
subjects of its first prompt for all later ones; this one does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import SpatialMaps
from attncontrol.maps.functional import symmetric_kl
from attncontrol.maps.step import StepMaps, words_outside
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups


def syngen(
    maps: SpatialMaps,
    subjects: Sequence[Subject],
    outside: Sequence[Sequence[int]],
    *,
    entities: bool = False,
) -> Tensor:
    """The loss of one image. ``outside[k]`` are the positions of the words outside ``subjects[k]``;
    unbounded below."""
    distance = symmetric_kl(maps)
    loss = maps.sum() * 0

    def away(sources: tuple[int, ...], others: Sequence[int]) -> Tensor:
        return (
            distance[list(sources)][:, list(others)].amax(0).mean()
            if others
            else distance.new_zeros(())
        )

    for subject, others in zip(subjects, outside, strict=True):
        noun = subject.noun.positions
        for modifier in subject.modifiers:
            near = distance[list(modifier.positions)][:, list(noun)].max()
            loss = loss + near - (away(noun, others) + away(modifier.positions, others)) / 2
        if entities and not subject.modifiers:
            loss = loss - away(noun, others)
    return loss


@dataclass(frozen=True)
class SynGen(Objective):
    """Objective for ``steer``. ``words`` None: the nouns and their modifiers, by the parse."""

    words: Groups | None = None
    entities: bool = False
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, thresholds={}))

    def acts(self, subjects: Sequence[Subject]) -> bool:
        return self.entities or any(subject.modifiers for subject in subjects)

    def __call__(self, maps: StepMaps) -> Tensor:
        outside = words_outside(maps)
        each = zip(maps.mean(), maps.subjects, outside, strict=True)
        return torch.stack([syngen(*of_image, entities=self.entities) for of_image in each])


def example() -> SynGen:
    """For the prompt "a red cat and a frog"."""
    return SynGen(words=[["red", "cat"], "frog"])
