"""Cells of the picture in regions of it."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, on_grid, require_region
from attncontrol.edits.merge import keys_of
from attncontrol.errors import SettingError
from attncontrol.prompts.words import Word


def require_regions(regions: Mapping[Word, Region]) -> None:
    """Raises SettingError."""
    if not regions:
        raise SettingError("regions map words to boxes, such as {'cat': (0.0, 0.2, 0.5, 0.9)}")
    for word, region in regions.items():
        require_region(region, repr(word))


def inside(regions: Iterable[Region], layout: Layout, device: torch.device) -> Tensor:
    """Which cells lie in each region [region cell], in a video those of all frames."""
    frame = torch.stack([on_grid(region, *layout.grid[-2:]).flatten() for region in regions])
    return frame.repeat(1, math.prod(layout.grid[:-2])).to(device)


class Together:
    """Which cells lie in one region, of ``cells`` [region cell]. Cells of the same regions are one
    group, so that pairs of cells need no matrix of all of them."""

    def __init__(self, cells: Tensor) -> None:
        groups, self._group = cells.unique(dim=1, return_inverse=True)
        numbers = groups.to(torch.float32)
        self._shared = numbers.T @ numbers > 0

    def of(self, cells: Tensor | slice) -> Tensor:
        """Of some cells with all [some cell]."""
        return self._shared[self._group[cells]][:, self._group]

    @property
    def share(self) -> Tensor:
        """With what share of all each cell lies in one [cell], float64."""
        counts = self._group.bincount(minlength=len(self._shared)).to(torch.float64)
        return (self._shared * counts).sum(1)[self._group] / len(self._group)


def of_words(
    words: Iterable[Word], cells: Tensor, call: AttentionCall, now: Moment, row: int
) -> Tensor:
    """Which cells lie in the region of the word of each key [cell key], of ``cells`` [word cell];
    keys of no word have none."""
    named = cells.new_zeros(cells.shape[1], call.key.shape[2])
    for word, of_word in zip(words, cells, strict=True):
        for key in keys_of(word, row, call, now):
            named[:, key] |= of_word
    return named


def positions(call: AttentionCall, now: Moment, row: int) -> tuple[Tensor, Tensor]:
    """Of the cells among the queries, and of the texts among the keys of a row."""
    layout = now.layout.rows([row])
    queries = torch.arange(call.query.shape[2], device=call.query.device)[layout.image_slice]
    keys = torch.zeros(call.key.shape[2], dtype=torch.bool, device=call.key.device)
    for text in (layout.text, *layout.further.values()):
        keys[text] = True
    if call.site.kind == "joint":  # the picture begins earlier in rows with shorter text
        keys[queries] = False
    return queries, keys.nonzero()[:, 0]
