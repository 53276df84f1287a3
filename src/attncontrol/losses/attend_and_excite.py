"""Attend-and-Excite (Chefer et al. 2023, arXiv 2301.13826): every subject must be attended to somewhere.

    P     = softmax over tokens of 100 A, start token and last position left out    (A: mean over heads and layers)
    m_s   = max over pixels of G * P_s                                               (G: 3 x 3 Gaussian)
    L     = max over s of max(0, 1 - m_s)

The official code is followed where it differs from the text: the kernel is wider than its stated sigma
(``functional.smooth``), the softmax leaves out only the last of the padding positions, and every token of a word of
several tokens is a subject of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import Losses, TokenMaps
from attncontrol.descent import Descent
from attncontrol.functional import sharpen, smooth
from attncontrol.maps import StepMaps


def attend_and_excite(maps: TokenMaps, positions: Sequence[Sequence[int]], *, smoothing: bool = True) -> Losses:
    """The loss of each image, in [0, 1].

    ``maps`` are probabilities over all text positions; ``positions[b]`` are the token positions of the subjects of image b, each
    at least 1 and before the last. The gradient reaches the neighbourhood of one pixel of the least attended subject.
    """
    contrast = sharpen(maps)
    losses = []
    for image, subjects in zip(contrast, positions, strict=True):
        attention = image[..., [position - 1 for position in subjects]].permute(2, 0, 1)  # token height width
        peaks = (smooth(attention) if smoothing else attention).flatten(1).max(1).values
        losses.append((1 - peaks.min()).clamp(min=0))
    return torch.stack(losses)


@dataclass(frozen=True)
class AttendAndExcite:
    """Objective for ``steer``. ``words`` None means the nouns of the prompt."""

    words: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    smoothing: bool = True
    descent: Descent = field(default_factory=Descent)

    def __call__(self, maps: StepMaps) -> Tensor:
        positions = [[p for span in spans for p in span.positions] for spans in maps.spans]
        return attend_and_excite(maps.mean(), positions, smoothing=self.smoothing)


def example() -> AttendAndExcite:
    """For the prompt "a cat and a frog"."""
    return AttendAndExcite(words=["cat", "frog"])
