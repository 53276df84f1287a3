"""The numbers of a record that a page shows, reduced until they fit.

Every map is the mean over what the page does not let one choose. Cells on a coarser grid are means
of areas.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.errors import NonFiniteError, SizeError
from attncontrol.inspector.layers import Grid, block_names, groups, in_order, short_names
from attncontrol.inspector.quantise import atlas, floats
from attncontrol.maps.recorded import AttentionMaps

WORDS = 40
"""At most so many words per image."""


@dataclass(frozen=True)
class Detail:
    """The longer side of the largest grid of means over steps, of single steps and of heads; the
    most steps kept apart."""

    mean: int
    step: int
    head: int
    steps: int


LEVELS = (
    Detail(64, 32, 16, 50), Detail(64, 24, 16, 50), Detail(48, 16, 16, 50),
    Detail(32, 16, 16, 25), Detail(32, 12, 12, 25), Detail(24, 8, 8, 20),
    Detail(16, 8, 8, 10), Detail(8, 4, 4, 5),
)  # fmt: skip
"""From fine to coarse."""


@dataclass(frozen=True)
class Axes:
    """Lengths of the axes of a record, and of its layers as they run; ``words`` of an image are
    places on the token axis."""

    images: int
    branches: int
    steps: int
    frames: int
    words: tuple[tuple[int, ...], ...]
    grids: Mapping[str, Grid]
    heads: Mapping[str, int]

    @property
    def has_heads(self) -> bool:
        return max(self.heads.values()) > 1


def axes_of(maps: AttentionMaps, words: Sequence[Sequence[int]]) -> Axes:
    """From the shapes of the layers."""
    shapes = {name: maps.shapes[name] for name in in_order(maps.shapes)}
    first = next(iter(shapes.values()))
    most = max(map(len, words))
    filled = tuple((*of_image, *[0] * (most - len(of_image))) for of_image in words)
    frames = first[4] if len(first) == 8 else 1
    grids = {name: (shape[-3], shape[-2]) for name, shape in shapes.items()}
    return Axes(
        first[0],
        first[1],
        first[2],
        frames,
        filled,
        grids,
        {name: shape[3] for name, shape in shapes.items()},
    )


def fit(axes: Axes, cells: int) -> Detail:
    """The finest level of at most ``cells`` cells. Raises SizeError if there is none."""
    for level in LEVELS:
        if (count := _count(axes, level)) <= cells:
            return level
    raise SizeError(
        f"one page cannot hold this record: {count:,} cells at the coarsest level, {cells:,} fit. "
        "Record fewer images at a time, fewer layers or named words"
    )


def _count(axes: Axes, level: Detail) -> int:
    apart = axes.images * axes.branches * len(axes.words[0])
    found = groups(axes.grids)
    means = sum(math.prod(capped(group.grid, level.mean)) for group in found) * axes.frames
    steps = (
        sum(math.prod(capped(group.grid, level.step)) for group in found)
        * axes.frames
        * min(axes.steps, level.steps)
    )
    heads = sum(
        math.prod(capped(grid, level.head)) * axes.heads[name] for name, grid in axes.grids.items()
    )
    return apart * (means + steps * (axes.steps > 1) + heads * axes.has_heads)


def capped(grid: Grid, side: int) -> Grid:
    """The grid scaled down so that its longer side is at most ``side``."""
    scale = min(1.0, side / max(grid))
    return max(1, round(grid[0] * scale)), max(1, round(grid[1] * scale))


def bins(steps: int, most: int) -> list[list[int]]:
    """Neighbouring steps that are shown as one."""
    return [part.tolist() for part in np.array_split(np.arange(steps), min(steps, most))]


def numbers(maps: AttentionMaps, axes: Axes, detail: Detail) -> dict[str, Any]:
    """JSON of the groups of layers and of their maps, see ``atlas``:

    mean   [group][image branch frame word height width]
    step   [group][image branch frame word step height width]; None if the steps are not kept
    head   [layer][image branch head word height width], means over steps and frames; None if the
           heads are not kept
    stats  [layer][image branch head word 2], see ``head_statistics``, on the recorded grid
    empty  how many single steps a layer did not run in, over all layers: they are left out of all
           means, and their own maps are zero

    Raises NonFiniteError for maps of which a part is NaN or infinite.
    """
    found, parts = groups(axes.grids), bins(axes.steps, detail.steps)
    mean, step = [Mean() for _ in found], [Mean() for _ in found]
    head, stats, empty = [], [], 0
    for name in axes.grids:
        ordered = _ordered(maps.layers[name], axes.words)
        empty += _absent_steps(name, ordered)
        layer = ordered.mean(3)
        over_steps = layer.nanmean(2)
        binned = torch.stack([layer[:, :, part].nanmean(2) for part in parts], 4)
        for g, group in enumerate(found):
            if name in group.layers:
                mean[g] += regrid(over_steps, capped(group.grid, detail.mean))
                if axes.steps > 1:
                    step[g] += regrid(binned, capped(group.grid, detail.step))
        if axes.has_heads:
            of_heads = ordered.nanmean(2).mean(3)
            head.append(_drawn(of_heads, capped(axes.grids[name], detail.head)))
            stats.append(head_statistics(of_heads).numpy().ravel())
    return {
        "groups": [{"kind": g.kind, "name": g.name, "title": g.title} for g in found],
        "heads": _rows(axes) if axes.has_heads else [],
        "mean": atlas([m.value() for m in mean]),
        "step": atlas([s.value() for s in step], run=len(parts)) if axes.steps > 1 else None,
        "head": atlas(head) if axes.has_heads else None,
        "stats": floats(np.concatenate(stats)) if axes.has_heads else None,
        "empty": empty,
    }


@dataclass(frozen=True)
class Mean:
    """Of maps that come one after the other; those that are NaN do not count, and 0 is left where
    all are."""

    total: Any = 0.0
    count: Any = 0

    def __add__(self, maps: Tensor) -> "Mean":
        known = ~maps.isnan()
        return Mean(self.total + maps.where(known, 0.0), self.count + known.to(maps.dtype))

    def value(self) -> np.ndarray:
        return (self.total / self.count.clamp(min=1)).numpy()


def _rows(axes: Axes) -> list[dict[str, Any]]:
    layers = tuple(axes.grids)
    names, blocks = short_names(layers), block_names(layers)
    return [
        {"layer": name, "name": names[name], "block": blocks[name], "count": axes.heads[name]}
        for name in layers
    ]


def _ordered(of_layer: Tensor, words: Sequence[Sequence[int]]) -> Tensor:
    """[image branch step head frame word height width]."""
    maps = of_layer if of_layer.ndim == 8 else of_layer.unsqueeze(4)
    chosen = torch.stack(
        [of_image[..., list(index)] for of_image, index in zip(maps, words, strict=True)]
    ).float()
    return chosen.movedim(-1, 5)


def _drawn(maps: Tensor, grid: Grid) -> np.ndarray:
    """On another grid, zeros where nothing ran."""
    return regrid(maps, grid).nan_to_num(nan=0.0).numpy()


def _absent_steps(name: str, ordered: Tensor) -> int:
    """In how many steps the layer did not run: all its maps are NaN, in some image and branch. Maps
    of a word that a text does not have are NaN too."""
    absent = ordered.isnan().flatten(3).all(3)  # image branch step
    nothing = ordered.isnan().all((-2, -1), keepdim=True)
    if not (ordered.isfinite() | nothing).all():
        raise NonFiniteError(
            f"{name} holds NaN or infinite attention; it cannot be drawn. "
            f"Look at it: maps.layers[{name!r}]"
        )
    return int(absent.flatten(0, 1).any(0).sum())


def regrid(maps: Tensor, grid: Grid) -> Tensor:
    """[... height width] on another grid: means of areas where it is coarser, else bilinear."""
    if maps.shape[-2:] == grid:
        return maps
    flat = maps.flatten(0, -3)[:, None]
    coarser = grid[0] <= maps.shape[-2] and grid[1] <= maps.shape[-1]
    new = (
        F.adaptive_avg_pool2d(flat, grid)
        if coarser
        else F.interpolate(flat, grid, mode="bilinear", align_corners=False)
    )
    return new[:, 0].unflatten(0, maps.shape[:-2])


def head_statistics(maps: Tensor) -> Tensor:
    """[... 2] of maps [... height width], p = map / sum over its N cells: entropy -sum(p ln p) / ln
    N, and the share of the ceil(N / 10) largest cells in the sum. A map of zeros counts as
    uniform."""
    flat = maps.flatten(-2).double()
    count = flat.shape[-1]
    total = flat.sum(-1, keepdim=True)
    p = torch.where(total > 0, flat / total.clamp(min=torch.finfo(torch.float64).tiny), 1 / count)
    entropy = torch.special.entr(p).sum(-1) / math.log(max(count, 2))
    top = p.topk(math.ceil(count / 10), -1).values.sum(-1)
    return torch.stack([entropy, top], -1).float()
