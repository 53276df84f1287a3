"""Word maps carried along the attention among the cells of the picture: sharper borders, whole
objects.

S is row-stochastic, [cell cell], from the querying cell to those it looks at; m is a word map as a
vector; n = ``times``.

    gather      m' = S^n m         a cell takes the mean of what it looks at; constant maps stay
    spread      m' = (S^T)^n m     a cell hands its value on to what it looks at; the sum stays
    symmetric   m' = N^n m         undirected: N = D^(-1/2) W D^(-1/2), W = (S + S^T) / 2, D its
                                   row sums

    foreground  max(0, m - mean(m) - c std(m)): without the floor that gathering leaves everywhere

``gather`` is the usual choice (DAAM-i2i, DiffSegmenter: arXiv 2309.02773); every further power of S
smooths more.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.axes import ResizedWords, SelfMap, WordMaps
from attncontrol.checks.arguments import Count, Index, checked
from attncontrol.errors import SiteError
from attncontrol.maps.recorded import AttentionMaps

How = Literal["gather", "spread", "symmetric"]


@checked
def propagate(words: WordMaps, among: SelfMap, times: Index = 1, how: How = "gather") -> WordMaps:
    """The rows of ``among`` are divided by their sums first: in joint attention a part of them goes
    to the text."""
    size = among.shape[0] * among.shape[1]
    step = among.reshape(size, size).to(words)
    step = step / step.sum(1, keepdim=True).clamp(min=torch.finfo(step.dtype).tiny)
    if how == "symmetric":
        both = (step + step.T) / 2
        root = both.sum(1).clamp(min=torch.finfo(step.dtype).tiny).rsqrt()
        step = root[:, None] * both * root
    forward = step if how == "spread" else step.T
    flat = words.flatten(1)
    for _ in range(times):
        flat = flat @ forward
    return flat.unflatten(1, words.shape[1:])


@checked
def foreground(words: WordMaps, above: float = 0.0) -> WordMaps:
    """What lies more than ``above`` standard deviations above each map's own mean."""
    floor = words.mean((1, 2), keepdim=True) + above * words.std((1, 2), correction=0, keepdim=True)
    return (words - floor).clamp(min=0)


@checked
def among_cells(maps: AttentionMaps, image: Index = 0, *, most: Count = 1024) -> SelfMap:
    """Mean over the layers, heads and steps of the finest grid that has at most ``most`` cells, of
    an image->image recording.

    Raises SiteError if there is none.
    """
    grids = {
        tuple(layer.shape[-3:-1])
        for layer in maps.layers.values()
        if layer.shape[-3] * layer.shape[-2] == layer.shape[-1] <= most
    }
    if not grids:
        raise SiteError(
            f"no layer has attention among at most {most} cells; "
            "record with direction='image->image', or raise most"
        )
    grid = max(grids, key=lambda grid: grid[0] * grid[1])
    chosen = [layer for layer in maps.layers.values() if tuple(layer.shape[-3:-1]) == grid]
    mean: Tensor = torch.stack([layer[image, 0].nanmean((0, 1)) for layer in chosen]).nanmean(0)
    return mean.unflatten(2, grid)


@checked
def propagated(
    words: WordMaps,
    cells: AttentionMaps,
    image: Index = 0,
    *,
    times: Index = 1,
    how: How = "gather",
    most: Count = 1024,
) -> ResizedWords:
    """``propagate`` along ``among_cells`` of a recording, to whose grid the maps are resized
    bilinearly."""
    among = among_cells(cells, image, most=most)
    return propagate(
        F.interpolate(words[None], among.shape[:2], mode="bilinear", align_corners=False)[0],
        among,
        times,
        how,
    )
