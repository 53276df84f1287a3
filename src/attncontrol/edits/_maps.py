"""Attention to words, summed while the pipeline runs."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.between import text_mass
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment


def look(
    sums: dict[str, Any],
    call: AttentionCall,
    now: Moment,
    images: Sequence[int],
    positions: Sequence[Sequence[int]],
) -> None:
    """Adds the maps [image height width] of a call to those of its site in ``sums``: attention to
    the ``positions`` of each of ``images``, mean over heads, conditional rows."""
    first = now.rows("cond").start
    rows = [first + now.images.index(image) for image in images]
    groups = [[of_image] for of_image in positions]
    maps = text_mass(call.rows(rows), now.layout.rows(rows), groups)[..., 0].mean(1)
    sums[call.site.name] = sums.get(call.site.name, 0.0) + maps.detach()


def mean(sums: dict[str, Tensor]) -> Tensor:
    """Mean over sites on the finest of their grids [image height width]."""
    grid = max((maps.shape[-2:] for maps in sums.values()), key=lambda each: each[0] * each[1])
    fine = [F.interpolate(maps[:, None], tuple(grid), mode="bilinear") for maps in sums.values()]
    return torch.cat(fine, 1).mean(1)


def strong(maps: Tensor, threshold: float) -> Tensor:
    """Where the maximum over 3 x 3 cells is above a share of that of the whole map."""
    most = F.max_pool2d(maps[:, None], 3, 1, 1)[:, 0]
    return most > threshold * most.amax((1, 2), keepdim=True)
