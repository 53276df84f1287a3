"""Smoothed energy guidance (SEG, Hong 2024, arXiv 2408.00760): queries are blurred over the
picture; SoftSEG of HeadHunter.

    A'  = (1 - u) softmax(q k) + u softmax((G * q) k)

with G the 2-D Gaussian of deviation ``sigma`` in cells, or the mean for an infinite one.

Blurring queries is blurring the logits over the grid of queries. The kernel has the official code's
size, the odd number at or below ceil(6 sigma) + 1, at most the side of the grid, with reflected
borders, on the true grid (the official code: square ones). Queries are taken after normalisation
and rotation. Text queries of joint attention stay, except with ``scope="all"``, HeadHunter's
SoftSEG: the mean over all positions, for an infinite ``sigma`` only.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.edits.merge import lerp
from attncontrol.errors import SettingError


def _taps(sigma: float, cells: int, like: Tensor) -> Tensor:
    size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    size = min(size, cells - (cells % 2 - 1) if cells % 2 else cells - 1)
    place = torch.arange(size, device=like.device, dtype=torch.float64) - (size - 1) / 2
    taps = torch.exp(-0.5 * (place / sigma) ** 2)
    return (taps / taps.sum()).to(like)


def blur(query: Tensor, grid: tuple[int, ...], sigma: float) -> Tensor:
    """Queries [batch heads cells dim] of a picture (or the frames of a video), blurred within each
    picture."""
    height, width = grid[-2:]
    planes = query.transpose(2, 3).unflatten(3, (-1, height, width)).flatten(0, 3)[:, None]
    for axis, cells in ((2, height), (3, width)):
        taps = _taps(sigma, cells, query)
        half = (len(taps) - 1) // 2
        padding = (0, 0, half, half) if axis == 2 else (half, half, 0, 0)
        kernel = taps[None, None, :, None] if axis == 2 else taps[None, None, None, :]
        planes = F.conv2d(F.pad(planes, padding, mode="reflect"), kernel)
    shape = (*query.shape[:2], query.shape[3], -1)
    return planes[:, 0].reshape(shape).transpose(2, 3)


@dataclass(frozen=True)
class SmoothedQuery(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run."""

    sigma: float = math.inf
    u: float | Progress = 1.0
    scope: Literal["picture", "all"] = "picture"

    def __post_init__(self) -> None:
        if not self.sigma > 0 or (self.scope == "all" and not math.isinf(self.sigma)):
            raise SettingError(
                "sigma is a number of cells above 0, and infinite for scope='all', not "
                f"{self.sigma}"
            )

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        u = at(self.u, now.progress)
        smoothed = call.replace(query=self._smoothed(call.query, now.layout))
        return smoothed if u == 1 else lerp(call.run, smoothed.run, u)

    def _smoothed(self, query: Tensor, layout: Layout) -> Tensor:
        if self.scope == "all":
            return query.mean(2, keepdim=True).expand_as(query).contiguous()
        smoothed, picture = query.clone(), query[:, :, layout.image_slice]
        mean = picture.mean(2, keepdim=True).expand_as(picture)
        blurred = mean if math.isinf(self.sigma) else blur(picture, layout.grid, self.sigma)
        smoothed[:, :, layout.image_slice] = blurred
        return smoothed
