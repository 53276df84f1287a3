"""Attend-and-Excite (Chefer et al. 2023, arXiv 2301.13826): every subject must be attended to
somewhere.

    P     = softmax over tokens of 100 A, start token and last position left out
    m_s   = max over pixels of G * P_s
    L     = max over s of max(0, 1 - m_s)

A: mean over heads and layers, G: 3 x 3 Gaussian. The official code is followed where it differs
from the text: the kernel is wider than its stated sigma (``functional.smooth``), the softmax leaves
out only the last of the padding positions, and every token of a word of several tokens is a subject
of its own. In joint attention, which the paper does not know, the tokens of the prompt compete, of
each text encoder by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import Losses, TokenMaps
from attncontrol.maps.functional import sharpen, smooth
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.words import Groups


def attend_and_excite(
    maps: TokenMaps,
    positions: Sequence[Sequence[int]],
    contrast: Sequence[Sequence[slice]],
    *,
    smoothing: bool = True,
) -> Losses:
    """The loss of each image, in [0, 1].

    ``maps`` are probabilities over text positions. Of image b the positions of each of the parts
    ``contrast[b]`` compete, and ``positions[b]``, each in one of them, are the subjects. The
    gradient reaches the neighbourhood of one pixel of the least attended subject.
    """
    losses = []
    for image, subjects, parts in zip(maps, positions, contrast, strict=True):
        attention = sharpen(image[None], parts)[0, ..., list(subjects)].permute(
            2, 0, 1
        )  # token height width
        peaks = (smooth(attention) if smoothing else attention).flatten(1).max(1).values
        losses.append((1 - peaks.min()).clamp(min=0))
    return torch.stack(losses)


@dataclass(frozen=True)
class AttendAndExcite(Objective):
    """Objective for ``steer``. ``words`` None: the nouns of the prompt, by its parse."""

    words: Groups | None = None
    smoothing: bool = True
    descent: Descent = field(default_factory=Descent)

    def __call__(self, maps: StepMaps) -> Tensor:
        positions = [
            [p for subject in of_image for p in subject.noun.positions]
            for of_image in maps.subjects
        ]
        return attend_and_excite(maps.mean(), positions, maps.contrast, smoothing=self.smoothing)


def example() -> AttendAndExcite:
    """For the prompt "a cat and a frog"."""
    return AttendAndExcite(words=["cat", "frog"])
