"""Attention to words, summed while the pipeline runs."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.between import text_mass
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source, SourcePass, words_of


def look(
    sums: dict[str, Any],
    call: AttentionCall,
    now: Moment,
    source: Source,
    image: int,
    positions: tuple[Sequence[int], Sequence[int]],
) -> None:
    """Adds the maps [2 height width] of a call to those of its site in ``sums``: attention to the
    ``positions`` of the source and of an image, mean over heads, conditional rows."""
    theirs = _of_source(call, now, source, image, positions[0])
    maps = torch.stack([theirs, _of_image(call, now, image, positions[1])])
    sums[call.site.name] = sums.get(call.site.name, 0.0) + maps.detach()


def _of_source(
    call: AttentionCall, now: Moment, source: Source, image: int, positions: Sequence[int]
) -> Tensor:
    text, number = now.told(source, image)
    if not isinstance(source, SourcePass):
        return _of_image(call, now, number, positions)
    words = words_of(text, number)
    kept = source.take(now.place("maps", site=call.site.name))[number].to(call.query.device)
    return kept[..., [words.index(position) for position in positions]].sum(-1)


def _of_image(call: AttentionCall, now: Moment, image: int, positions: Sequence[int]) -> Tensor:
    row = now.rows("cond").start + now.images.index(image)
    return text_mass(call.rows([row]), now.layout.rows([row]), [[positions]])[0, ..., 0].mean(0)


def mean(sums: dict[str, Tensor]) -> Tensor:
    """Mean over sites on the finest of their grids [image height width]."""
    grid = max((maps.shape[-2:] for maps in sums.values()), key=lambda each: each[0] * each[1])
    fine = [F.interpolate(maps[:, None], tuple(grid), mode="bilinear") for maps in sums.values()]
    return torch.cat(fine, 1).mean(1)


def strong(maps: Tensor, threshold: float) -> Tensor:
    """Where the maximum over 3 x 3 cells is above a share of that of the whole map."""
    most = F.max_pool2d(maps[:, None], 3, 1, 1)[:, 0]
    return most > threshold * most.amax((1, 2), keepdim=True)


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
