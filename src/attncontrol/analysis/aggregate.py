"""From a recording to one map per word and picture: how layers, steps, heads, word pieces and
special tokens are put together.

    mean            M_k = mean over layers, heads and steps: ``AttentionMaps.mean``
    per resolution  the mean of the layers of each grid first, then the mean over grids: no grid
                    counts by its number of layers
    DAAM            M_k = mean_{l,h} max(0, bicubic(sum_t A_t^{l,h})_k), optionally
                    M_k / (sum_j M_j + 1e-6), j: words of the prompt (Tang et al. 2023, arXiv
                    2210.04885)
    word pieces     sum (the probability of looking at the word), mean (DAAM), max, or the first
                    piece (ConceptAttention)
    special tokens  left out, and the rest of every cell divided by its sum
    display         min-max per map, one maximum for all words of a picture, or share of the
                    picture's attention (sum 1)

All maps are [batch height width token], of videos [batch frames height width token]; layers of
several grids are resized to the finest one, bilinearly unless said otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attncontrol.axes import KeptTokens, Means
from attncontrol.checks.arguments import Count, checked
from attncontrol.errors import WordError
from attncontrol.maps.functional import resize
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.prompts.tokens import Span
from attncontrol.prompts.words import Words, resolve

WordMeans = Float[Tensor, "batch *frames height width word"]

Pieces = Literal["sum", "mean", "max", "first"]
_MERGE: dict[Pieces, Callable[[Tensor], Tensor]] = {
    "sum": lambda maps: maps.sum(-1),
    "mean": lambda maps: maps.mean(-1),
    "max": lambda maps: maps.amax(-1),
    "first": lambda maps: maps[..., 0],
}


def per_resolution(maps: AttentionMaps, branch: str | None = None) -> Means:
    """Mean over layers, heads and steps within each grid, then over the grids."""
    b = _index(maps, branch)
    of_grid: dict[tuple[int, ...], list[Tensor]] = {}
    for of_layer in maps.layers.values():
        of_grid.setdefault(of_layer.shape[-3:-1], []).append(of_layer[:, b].nanmean((1, 2)))
    height, width = _finest(maps)
    means = [torch.stack(means_of_grid).nanmean(0) for means_of_grid in of_grid.values()]
    resized = [
        resize(mean.flatten(0, -4), height, width).unflatten(0, mean.shape[:-3]) for mean in means
    ]
    return torch.stack(resized).nanmean(0)


@checked
def daam(
    maps: AttentionMaps,
    branch: str | None = None,
    *,
    size: tuple[Count, Count] | None = None,
    normalise: bool = False,
) -> Means:
    """DAAM's map. Exact for records that keep heads; ``size`` (height, width) is the finest grid
    unless given.

    DAAM itself upscales to 64 x 64, and its word map is the mean over the pieces of a word:
    ``merge(..., "mean")``. It leaves out the middle block and the layers of 8 x 8 at 512 px; here
    all that was recorded counts. ``normalise``: special tokens and padding do not count in the sum;
    of a record of some words, it is the sum of these.
    """
    b, count = _index(maps, branch), len(maps.steps)
    total, heads = torch.zeros(()), 0
    for of_layer in maps.layers.values():
        summed = of_layer[:, b].nanmean(1) * count  # batch heads *frames height width token
        fine = F.interpolate(
            summed.movedim(-1, -3).flatten(0, -4),
            size or _finest(maps),
            mode="bicubic",
            align_corners=False,
        )
        shape = (*summed.shape[:-3], summed.shape[-1])
        total = total + _planes(fine.clamp(min=0), shape).sum(1)
        heads += summed.shape[1]
    mean = total / heads
    if not normalise:
        return mean
    kept = without_special(maps).to(mean.device)
    of_words = (mean * kept.view(len(kept), *[1] * (mean.ndim - 2), -1)).sum(-1, keepdim=True)
    return mean / (of_words + 1e-6)


def _planes(fine: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[many token height width] -> [*leading height width token]"""
    return fine.movedim(1, -1).unflatten(0, shape[:-1])


def merge(
    maps: Means, positions: Sequence[Sequence[Sequence[int]]], how: Pieces = "sum"
) -> WordMeans:
    """Token maps -> word maps; ``positions[b]`` are, for every word of image b, its positions on
    the token axis.

    Images with fewer words than others are filled with zeros.
    """
    merged = maps.new_zeros(*maps.shape[:-1], max(map(len, positions)))
    for b, words in enumerate(positions):
        for k, pieces in enumerate(words):
            merged[b, ..., k] = _MERGE[how](maps[b][..., list(pieces)])
    return merged


@checked
def word_maps(
    maps: AttentionMaps,
    words: Words,
    how: Pieces = "sum",
    *,
    layers: Callable[[AttentionMaps], Means] = AttentionMaps.mean,
) -> WordMeans:
    """Maps of words from a recording of all tokens (``words=None``); ``layers`` is how layers,
    heads and steps are put together.

    Raises WordError if a word is not in its prompt or the recording is one of words.
    """
    spans = resolve(maps.tokens.__getitem__, maps.prompts, words)
    return merge(layers(maps), on_axis(maps, spans), how)


def on_axis(maps: AttentionMaps, spans: Sequence[Sequence[Span]]) -> list[list[list[int]]]:
    """Where the pieces of words are on the token axis of a recording of all tokens. Raises
    WordError if it is one of words."""
    if tuple(map(len, maps.spans)) != tuple(map(len, maps.tokens)):
        raise WordError(
            "word pieces can be put together in a recording of all tokens only: "
            "record(pipe), without words"
        )
    axis = [{token.index: place for place, token in enumerate(tokens)} for tokens in maps.tokens]
    return [
        [[at[p] for p in span.positions] for span in of] for at, of in zip(axis, spans, strict=True)
    ]


def without_special(maps: AttentionMaps) -> KeptTokens:
    """Which columns of the token axis are words of the prompt: not start, end, padding, and not the
    filling of short prompts."""
    most = max(map(len, maps.spans))
    kept = torch.zeros(len(maps.spans), most, dtype=torch.bool)
    for b, (spans, tokens) in enumerate(zip(maps.spans, maps.tokens, strict=True)):
        special = {token.index for token in tokens if token.special}
        for k, span in enumerate(spans):
            kept[b, k] = not special.issuperset(span.positions)
    return kept


def renormalised(maps: Means, kept: KeptTokens) -> Means:
    """Zero for the other tokens; those kept sum to 1 in every cell, or to 0 where they had
    nothing."""
    chosen = maps * kept.view(len(kept), *[1] * (maps.ndim - 2), -1)
    return chosen / chosen.sum(-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def min_max(maps: Means) -> Means:
    """Every map from 0 to 1; a constant map is 0."""
    cells = tuple(range(1, maps.ndim - 1))
    low, high = maps.amin(cells, keepdim=True), maps.amax(cells, keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def shared_maximum(maps: Means) -> Means:
    """Divided by the largest value of all words of the picture, so that words can be compared."""
    return maps / maps.amax(tuple(range(1, maps.ndim)), keepdim=True).clamp(
        min=torch.finfo(maps.dtype).tiny
    )


def share(maps: Means) -> Means:
    """Every map divided by its sum: where the picture's attention to the word lies. A map of zeros
    stays."""
    return maps / maps.sum(tuple(range(1, maps.ndim - 1)), keepdim=True).clamp(
        min=torch.finfo(maps.dtype).tiny
    )


def _index(maps: AttentionMaps, branch: str | None) -> int:
    return 0 if branch is None else maps.branches.index(branch)


def _finest(maps: AttentionMaps) -> tuple[int, int]:
    """(height, width) of the layer with the most cells."""
    height, width = max(
        (layer.shape[-3:-1] for layer in maps.layers.values()), key=lambda grid: grid[0] * grid[1]
    )
    return height, width
