"""Maps of attention to words."""

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.call import Layout


def mean(sums: dict[str, Tensor]) -> Tensor:
    """Mean over sites on the finest of their grids [image height width]."""
    grid = max((maps.shape[-2:] for maps in sums.values()), key=lambda each: each[0] * each[1])
    fine = [F.interpolate(maps[:, None], tuple(grid), mode="bilinear") for maps in sums.values()]
    return torch.cat(fine, 1).mean(1)


def strong(maps: Tensor, threshold: float, cells: int = 0) -> Tensor:
    """Where the maximum over a sixteenth of the picture on each side, in whole cells and at least
    so many, is above a share of that of the whole map."""
    reach = max(min(maps.shape[-2:]) // 16, cells)
    most = F.max_pool2d(maps[:, None], 2 * reach + 1, 1, reach)[:, 0]
    return most > threshold * most.amax((1, 2), keepdim=True)


def relative(maps: Tensor) -> Tensor:
    """In shares of the largest value of every map."""
    tiny = torch.finfo(maps.dtype).tiny
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(tiny)


def smooth(maps: Tensor) -> Tensor:
    """[image height width], weighted 1 2 1 across and down."""
    for weights in (maps.new_tensor([[1, 2, 1]]), maps.new_tensor([[1], [2], [1]])):
        height, width = weights.shape
        padded = F.pad(
            maps[:, None], (width // 2, width // 2, height // 2, height // 2), "replicate"
        )
        maps = F.conv2d(padded, weights[None, None] / 4)[:, 0]
    return maps


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
    least, most = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    near = maps - least >= threshold * (most - least)
    near = F.interpolate(near[None].float(), layout.grid[-2:], mode="nearest")[0]
    return near.flatten(1) > 0
