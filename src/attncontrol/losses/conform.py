"""CONFORM (Meral et al. 2024, arXiv 2312.06059): contrastive loss of token maps, now and in the
step before.

    items     the tokens of every subject, noun and modifiers, of this step and of the step before
    s(a, b)   cosine similarity of G * A, flattened                       G: 3 x 3 Gaussian
    L         mean over ordered pairs (a, p) of one subject of
              - log( exp(s_ap / t) / (exp(s_ap / t) + sum over n of other subjects of exp(s_an / t))
              )

A: mean over heads and layers, no softmax over tokens, as in the official notebook. The step before
has no gradient. Zero where no subject has two items, which in the first step is every prompt of
single-token nouns. Refinement takes a fixed number of steps, at fractions 0, 0.2 and 0.4 of the
run. The official code keeps the graph of the step before and, with its softmax on, multiplies the
stored map by 100 each time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.axes import SpatialMaps
from attncontrol.checks.arguments import Positive
from attncontrol.maps.functional import smooth
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective, several
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups


def conform(
    maps: SpatialMaps,
    previous: SpatialMaps | None,
    subjects: Sequence[Subject],
    *,
    temperature: float = 0.5,
) -> Tensor:
    """The loss of one image."""
    positions = [p for subject in subjects for p in subject.positions]
    labels = torch.tensor(
        [i for i, subject in enumerate(subjects) for _ in subject.positions], device=maps.device
    )
    items = [step[..., positions].permute(2, 0, 1) for step in (maps, previous) if step is not None]
    labels = labels.repeat(len(items))
    vectors = F.normalize(smooth(torch.cat(items)).flatten(1), dim=1)
    logits = vectors @ vectors.T / temperature
    same = labels[:, None] == labels
    pairs = same & ~torch.eye(len(labels), dtype=torch.bool, device=maps.device)
    if not pairs.any():
        return maps.sum() * 0
    others = logits.masked_fill(same, -math.inf).logsumexp(1, keepdim=True)
    return (torch.logaddexp(logits, others.expand_as(logits)) - logits)[pairs].mean()


_OFTEN = dict.fromkeys((0.0, 0.2, 0.4), math.inf)


@dataclass(frozen=True)
class CONFORM(Objective):
    """Objective for ``steer``. ``words`` None: the nouns and their modifiers, by the parse."""

    words: Groups | None = None
    temperature: Positive = 0.5
    descent: Descent = field(default_factory=lambda: Descent(guided=0.6, thresholds=_OFTEN))
    remembers = True
    acts = several

    def __call__(self, maps: StepMaps) -> Tensor:
        before = maps.previous if maps.previous is not None else [None] * len(maps.subjects)
        each = zip(maps.mean(), before, maps.subjects, strict=True)
        return torch.stack([conform(*of_image, temperature=self.temperature) for of_image in each])


def example() -> CONFORM:
    """For the prompt "a red cat and a frog"."""
    return CONFORM(words=[["red", "cat"], "frog"])
