"""Divide and Bind (Li et al. 2023, arXiv 2307.10864): every subject varies over the picture, and
its attributes vary with it.

    TV_s   = mean |A(y+1, x) - A(y, x)| + mean |A(y, x+1) - A(y, x)|      of G * S_s
    JSD_s  = Jensen-Shannon divergence of the maps of the noun and of its modifiers
    L      = max over s of ( -TV_s + weight * JSD_s )                     the worst subject

Maps of JSD are divided by their sums; S: softmax over tokens of 100 A, G: 3 x 3 Gaussian, A: mean
over heads, layers and pieces. The official code, not followed, takes differences to the last row,
reads attributes from finer layers, flattens maps by softmax and threshold, raises ``weight`` to 10,
refines until TV alone is .05, .2, .3, 50 and later 20 times (or 100, 50); here 20, until -L is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from attncontrol.axes import PixelMap, SpatialMaps
from attncontrol.maps.functional import sharpen, smooth
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.tokens import Span, Subject
from attncontrol.prompts.words import Groups

_THRESHOLDS = MappingProxyType({0.0: 1.05, 0.2: 1.2, 0.4: 1.3})  # TV of 0.05, 0.2 and 0.3


def total_variation(image: PixelMap) -> Tensor:
    """Mean absolute difference of vertical plus that of horizontal neighbours."""
    return image.diff(dim=0).abs().mean() + image.diff(dim=1).abs().mean()


def jensen_shannon(a: PixelMap, b: PixelMap) -> Tensor:
    """Of two maps divided by their sums; 0 for equal ones, log 2 for disjoint ones."""
    p, q = (image.flatten().clamp(min=1e-12) / image.clamp(min=1e-12).sum() for image in (a, b))
    middle = (p + q) / 2
    return ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2


def divide_and_bind(
    maps: SpatialMaps,
    subjects: Sequence[Subject],
    contrast: Sequence[slice],
    *,
    weight: float = 1.0,
) -> Tensor:
    """The loss of one image."""
    sharp = sharpen(maps[None], contrast)[0]

    def image(span: Span) -> Tensor:
        return smooth(sharp[..., list(span.positions)].mean(-1)[None])[0]

    losses = []
    for subject in subjects:
        noun = image(subject.noun)
        apart = sum((jensen_shannon(noun, image(m)) for m in subject.modifiers), noun.sum() * 0)
        losses.append(weight * apart / max(len(subject.modifiers), 1) - total_variation(noun))
    return torch.stack(losses).max()


@dataclass(frozen=True)
class DivideAndBind(Objective):
    """Objective for ``steer``. ``words`` None: the nouns and their modifiers, by the parse."""

    words: Groups | None = None
    weight: float = 1.0
    descent: Descent = field(default_factory=lambda: Descent(thresholds=_THRESHOLDS))

    def __call__(self, maps: StepMaps) -> Tensor:
        each = zip(maps.mean(), maps.subjects, maps.contrast, strict=True)
        return torch.stack([divide_and_bind(*of_image, weight=self.weight) for of_image in each])


def example() -> DivideAndBind:
    """For the prompt "a red cat and a frog"."""
    return DivideAndBind(words=[["red", "cat"], "frog"])
