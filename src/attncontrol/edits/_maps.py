"""Maps of attention to words [image height width]; of videos [image frame height width], whose
frames are near nothing else, and compared as one picture."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.call import Layout


def mean(sums: dict[str, Tensor]) -> Tensor:
    """Mean over sites on the finest of their grids [image *frame height width]."""
    grid = max((maps.shape[-2:] for maps in sums.values()), key=lambda each: each[0] * each[1])
    return torch.stack([_sized(maps, grid, "bilinear") for maps in sums.values()]).mean(0)


def _sized(maps: Tensor, grid: Sequence[int], mode: str) -> Tensor:
    frames = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(frames, tuple(grid), mode=mode).reshape(*maps.shape[:-2], *grid)


def _most(maps: Tensor) -> Tensor:
    """The largest value of every image."""
    return maps.amax(tuple(range(1, maps.ndim)), keepdim=True)


def strong(maps: Tensor, threshold: float, cells: int = 0) -> Tensor:
    """Where the maximum over a sixteenth of the picture on each side, in whole cells and at least
    so many, is above a share of that of the whole map."""
    reach = max(min(maps.shape[-2:]) // 16, cells)
    most = F.max_pool2d(maps, 2 * reach + 1, 1, reach)
    return most > threshold * _most(most)


def relative(maps: Tensor) -> Tensor:
    """In shares of the largest value of every map."""
    tiny = torch.finfo(maps.dtype).tiny
    return maps / _most(maps).clamp_min(tiny)


def smooth(maps: Tensor) -> Tensor:
    """Weighted 1 2 1 across and down."""
    frames = maps.reshape(-1, 1, *maps.shape[-2:])
    for weights in (maps.new_tensor([[1, 2, 1]]), maps.new_tensor([[1], [2], [1]])):
        height, width = weights.shape
        padded = F.pad(frames, (width // 2, width // 2, height // 2, height // 2), "replicate")
        frames = F.conv2d(padded, weights[None, None] / 4)
    return frames.reshape(maps.shape)


def apart(numbers: Tensor) -> Tensor:
    """Which numbers are above the threshold of Otsu, which makes the means below and above it
    differ most: the variance between both is largest."""
    ordered = numbers.flatten().double().sort().values
    below = torch.arange(1, len(ordered), device=numbers.device)
    sums = ordered.cumsum(0)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ordered) - below)
    between = below * (len(ordered) - below) * (means[1] - means[0]) ** 2
    between[ordered[1:] == ordered[:-1]] = -1.0  # equal numbers stay together
    best = int(between.argmax()) if len(between) else 0
    return numbers > ordered[best].to(numbers)


def shown(maps: Tensor, threshold: float, layout: Layout) -> Tensor:
    """Which cells [image cell] are at least ``threshold`` of the way from the smallest to the
    largest value."""
    least, most = -_most(-maps), _most(maps)
    near = maps - least >= threshold * (most - least)
    return _sized(near.float(), layout.grid[-2:], "nearest").flatten(1) > 0
