"""What objectives see in one step, and what a recording returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from attncontrol.axes import Recorded, TokenMaps, WordMap
from attncontrol.errors import CouplingError, WordError
from attncontrol.functional import resize
from attncontrol.tokens import Span


@dataclass(frozen=True)
class StepMaps:
    """Attention probabilities of one step, differentiable, conditional branch only.

    ``layers`` maps site names to [batch heads height width token] over all text positions. ``spans[b]`` are the words of
    image b that the objective asked for.
    """

    layers: Mapping[str, Tensor]
    spans: tuple[tuple[Span, ...], ...]

    def mean(self) -> TokenMaps:
        """Unweighted mean over all heads of all layers; layers of different grids are resized to the finest one."""
        return _mean_of([maps.sum(1) for maps in self.layers.values()], sum(maps.shape[1] for maps in self.layers.values()))


def _mean_of(sums: list[Tensor], count: int) -> TokenMaps:
    height, width = max((maps.shape[1:3] for maps in sums), key=lambda grid: grid[0] * grid[1])
    return reduce(torch.add, (resize(maps, height, width) for maps in sums)) / count


class AttentionMaps:
    """Recorded attention, filled while the pipeline runs.

    ``layers`` maps site names to float32 tensors [batch branch step heads height width token] on the CPU. A reduced axis has
    length 1: the mean over steps and heads is kept unless asked otherwise. ``labels[b]`` names the token axis for image b: a
    word asked for (the probability of attending to any of its tokens: their sum), or every token of the text sequence.
    """

    def __init__(self) -> None:
        self.layers: dict[str, Recorded] = {}
        self.labels: tuple[tuple[str, ...], ...] = ()
        self.branches: tuple[str, ...] = ()
        self.timesteps: tuple[float, ...] = ()
        self.prompts: tuple[str, ...] = ()

    def __getitem__(self, word: str) -> WordMap:
        """[batch height width]: mean over layers, heads and steps of the first branch, on the finest grid."""
        mean = self.mean()
        missing = [labels for labels in self.labels if word not in labels]
        if missing:
            raise WordError(f"{word!r} was not recorded; recorded are: {', '.join(missing[0])}")
        index = torch.tensor([labels.index(word) for labels in self.labels])
        return mean[torch.arange(len(index)), :, :, index]

    def mean(self, branch: str | None = None) -> TokenMaps:
        """[batch height width token] of one branch (default: the first), mean over layers, heads and steps."""
        if not self.layers:
            raise CouplingError("nothing is recorded yet; the maps are complete when the record(...) block ends")
        b = 0 if branch is None else self.branches.index(branch)
        return _mean_of([maps[:, b].mean((1, 2)) for maps in self.layers.values()], len(self.layers))

    @property
    def nbytes(self) -> int:
        return sum(maps.numel() * maps.element_size() for maps in self.layers.values())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(maps.shape)}" for name, maps in self.layers.items())
        return f"AttentionMaps({len(self.prompts)} images, {len(self.timesteps)} steps, {self.nbytes / 1e6:.1f} MB; {shapes})"


def summed(probabilities: Tensor, spans: tuple[Span, ...]) -> Tensor:
    """Last axis: text positions -> spans, each the sum of its positions."""
    return torch.stack([probabilities[..., list(span.positions)].sum(-1) for span in spans], -1)
