"""The cells of a picture in square blocks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def blocks(cells: Tensor, grid: tuple[int, ...], size: int) -> Tensor:
    """[... cell dim] by blocks of ``size`` x ``size`` cells of a frame [... block place dim]; those
    at the right and at the bottom are filled up with zeros."""
    height, width = grid[-2:]
    below, beside = -height % size, -width % size
    frames = math.prod(grid[:-2])
    whole = F.pad(cells.unflatten(-2, (frames, height, width)), (0, 0, 0, beside, 0, below))
    parts = whole.unflatten(-3, (-1, size)).unflatten(-2, (-1, size))
    return parts.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3).flatten(-4, -3)


def pooled(
    key: Tensor, value: Tensor, grid: tuple[int, ...], size: int, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Of [batch heads cell dim] those of blocks [batch heads block dim]: means, the mean itself
    with weight 1 and every cell with that of its key's product with the mean key."""
    keys, values = blocks(key, grid, size), blocks(value, grid, size)
    real = blocks(key.new_ones(key.shape[2], 1), grid, size)  # that are not filled up
    means = [each.sum(-2, keepdim=True) / real.sum(-2, keepdim=True) for each in (keys, values)]
    weight = (beta + alpha * keys @ means[0].mT).sigmoid() * real
    total = weight.sum(-2) + 1
    first, second = (
        ((weight * each).sum(-2) + mean[..., 0, :]) / total
        for each, mean in zip((keys, values), means, strict=True)
    )
    return first, second


def matched(query: Tensor, key: Tensor, grid: tuple[int, ...], size: int) -> Tensor:
    """Which keys lie in the block of largest product with that of each query [batch heads query
    key]."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    queries, keys = (blocks(each, grid, size).flatten(-2) for each in (query, key))
    best, own = (queries @ keys.mT).argmax(-1), numbers(grid, size, key.device)
    return best[:, :, own][..., None] == own


def numbers(grid: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """The number of the block of every cell [cell]."""
    height, width = grid[-2:]
    rows, columns = (torch.arange(n, device=device) // size for n in (height, width))
    across, down = -(-width // size), -(-height // size)
    frame = (rows[:, None] * across + columns).flatten()
    frames = torch.arange(math.prod(grid[:-2]), device=device)
    return (frames[:, None] * across * down + frame).flatten()
