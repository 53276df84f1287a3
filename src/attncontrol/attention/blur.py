"""Queries blurred over the grid of the picture."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _taps(sigma: float, cells: int, like: Tensor) -> Tensor:
    size = math.ceil(6 * sigma) + 1 - math.ceil(6 * sigma) % 2
    size = min(size, cells + 1 - cells % 2)
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
