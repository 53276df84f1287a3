"""Rearranging by self-guidance (Epstein et al. 2023, arXiv 2306.00986): words move, grow or stay.

    appearance  = sum over cells of shape F / sum shape           no gradient through shape
    L           = sum over words of  |property - property in the original - change|

Properties: centroid (sum of x, y), size, shape (mean) as in ``self_guidance``, appearance (mean).
F: outputs of attention among the cells, with the mean of L over layers; the paper takes activations
of one layer. The original is the first picture: give all one prompt and one seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import PixelMap, SpatialMaps
from attncontrol.checks.arguments import Positive
from attncontrol.errors import CallError, SettingError
from attncontrol.maps.functional import centroid, resize, shape, size, summed
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective


def appearance(word: PixelMap, features: SpatialMaps) -> Tensor:
    """[channel] mean over the outline of a word, whose map may have another grid."""
    outline = resize(shape(word.detach())[None, ..., None], *features.shape[:2])[0]
    return (outline * features).sum((0, 1)) / outline.sum().clamp(min=1e-12)


@dataclass(frozen=True)
class Rearrange(Objective):
    """Objective for ``steer``. ``moves``: word -> way (x, y) in fractions of the picture,
    ``scales``: word -> factor of its size; ``shapes`` and ``appearances``: words to keep."""

    moves: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    scales: Mapping[str, Positive] = field(default_factory=dict)
    shapes: Sequence[str] = ()
    appearances: Sequence[str] = ()
    descent: Descent = field(default_factory=lambda: Descent(thresholds={}))
    compares = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.words:
            raise SettingError("name at least one word to move, to scale or to keep")

    @property
    def words(self) -> list[str]:
        return [*self.moves, *self.scales, *self.shapes, *self.appearances]

    @property
    def features(self) -> bool:
        return bool(self.appearances)

    def __call__(self, maps: StepMaps) -> Tensor:
        if len(maps.subjects) < 2:
            raise CallError("the first picture of the batch is the original: make at least two")
        mean, layers = maps.mean(), list(maps.features.values())
        words = [torch.stack(summed(*of)) for of in zip(mean, maps.subjects, strict=True)]
        losses = [torch.stack([*self._terms(i, words, layers)]).sum() for i in range(1, len(words))]
        return torch.stack([mean[0].sum() * 0, *losses])

    def _terms(self, i: int, words: Sequence[Tensor], layers: Sequence[Tensor]) -> Iterator[Tensor]:
        pairs = iter(zip(words[i], words[0].detach(), strict=True))  # every loop takes its words
        for way, (word, original) in zip(self.moves.values(), pairs, strict=False):
            yield (centroid(word) - centroid(original) - word.new_tensor(way)).abs().sum()
        for factor, (word, original) in zip(self.scales.values(), pairs, strict=False):
            yield (size(word) - factor * size(original)).abs()
        for _, (word, original) in zip(self.shapes, pairs, strict=False):
            yield (shape(word) - shape(original)).abs().mean()
        for _, (word, original) in zip(self.appearances, pairs, strict=False):
            looks = [appearance(word, f[i]) - appearance(original, f[0].detach()) for f in layers]
            yield torch.stack([look.abs().mean() for look in looks]).mean()


def example() -> Rearrange:
    """For the prompt "a red cat and a frog"."""
    return Rearrange(moves={"cat": (-0.2, 0.0)}, appearances=["frog"])
