"""Cells of a picture that come to lie elsewhere."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.regions import Region, centre_of, coverage, grown, on_grid


@dataclass(frozen=True)
class Shift:
    """p -> centre + ``by`` + ``scale`` (p - centre), in shares of width and height, for the cells
    of a region around its centre, or of the whole picture; with ``flip`` left and right change
    places."""

    region: Region | None
    by: tuple[float, float]
    scale: float
    flip: bool

    def places(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """For every cell the number of the one that comes to lie there, and whether that is one of
        the region [height width]."""
        columns = self._before(0, width, -self.scale if self.flip else self.scale)
        rows = self._before(1, height, self.scale)
        high, wide = ((at >= 0) & (at < size) for at, size in ((rows, height), (columns, width)))
        cells = rows.clamp(0, height - 1)[:, None] * width + columns.clamp(0, width - 1)
        inside = high[:, None] & wide
        if self.region is not None:
            inside = inside & on_grid(self.region, height, width).flatten()[cells]
        return cells, inside

    def free(self, grow: float, height: int, width: int) -> Tensor:
        """How much of every cell comes free [height width]: of the region, or of the sides of the
        picture that come into view; ``grow`` larger."""
        if self.region is not None:
            return coverage(grown(self.region, grow), height, width)
        (left, right), (top, bottom) = self._side(0, grow), self._side(1, grow)
        return 1 - coverage((left, top, right, bottom), height, width)

    def hole(self, grow: float, height: int, width: int) -> Tensor:
        """Which cells come free: those by more than half, and at least one of them."""
        share = self.free(grow, height, width)
        return (share > 0.5) | ((share > 0) & (share == share.max()))

    def _before(self, axis: int, size: int, scale: float) -> Tensor:
        places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        centre = centre_of(self.region)[axis]
        before = centre + (places - self.by[axis] - centre) / scale
        return (before * size + 1e-9).floor().long()

    def _side(self, axis: int, margin: float) -> tuple[float, float]:
        start = 0.5 + self.by[axis] - self.scale / 2
        stop = start + self.scale
        return (start + margin if start > 0 else 0.0, stop - margin if stop < 1 else 1.0)
