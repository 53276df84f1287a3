"""From word maps to masks, and how well maps and masks hit known ones.

Masks of maps [word height width]:

    otsu         above the threshold that parts the values best: ``functional.otsu``
    above        M > min + level (max - min)
    strongest    the word whose min-max map is largest in the cell, if it is above ``background``
    refine       a function (picture, mask) -> mask of the user, such as one that prompts SAM with
                 the peak or box of the mask

Scores of one map or mask against the true mask [height width]:

    iou          |P and T| / |P or T|; 0 if both are empty
    average_precision   sum_n (R_n - R_{n-1}) P_n over the distinct values, highest first; equal
                        values count together
    pointing     the largest value lies inside T (the first one of several)
    inside       sum of M in T / sum of M
    two_class    the protocol of ConceptAttention (Helbling et al. 2025, arXiv 2502.04320): the map
                 goes to the size of T by nearest neighbour; foreground is M > mean(M); accuracy
                 over pixels, mean IoU of foreground and background, and the average precision of
                 both classes in one list, with scores M and 1 - M of the min-max map. The official
                 code sums up intersections and unions over a data set before it divides; here the
                 scores are of one picture
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from attncontrol.axes import Area, CellMask, CellMasks, PixelMap, WordMaps
from attncontrol.checks.arguments import Share, checked
from attncontrol.maps.functional import otsu

WordMasks = Bool[Tensor, "word rows columns"]

Refine = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Picture (height, width, 3) uint8 and mask (height, width) bool -> mask."""


@checked
def above(maps: WordMaps, level: Share = 0.5) -> CellMasks:
    """The cells above a share of each map's range; none of a constant map."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return maps > low + level * (high - low)


@checked
def strongest(maps: WordMaps, background: Share = 0.5) -> CellMasks:
    """Each cell belongs to one word, or to none; the first one of equal words."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scaled = (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
    owner = scaled.argmax(0)
    return (owner == torch.arange(len(maps), device=maps.device)[:, None, None]) & (
        scaled > background
    )


@checked
def masks(
    maps: WordMaps,
    picture: np.ndarray,
    *,
    method: Callable[[Tensor], Tensor] = otsu,
    refine: Refine | None = None,
) -> WordMasks:
    """Masks of the size of ``picture`` (height, width, 3) from maps that are resized to it
    bilinearly."""
    masks_of_words: Tensor = method(
        F.interpolate(maps[None], picture.shape[:2], mode="bilinear", align_corners=False)[0]
    )
    if refine is None:
        return masks_of_words
    return torch.stack(
        [
            torch.from_numpy(np.asarray(refine(picture, mask), dtype=bool))
            for mask in masks_of_words.cpu().numpy()
        ]
    )


def iou(mask: Area, truth: Area) -> float:
    return int((mask & truth).sum()) / max(int((mask | truth).sum()), 1)


def average_precision(scores: Tensor, truth: Tensor) -> float:
    """Of scores and 0/1 truth of the same shape; 0 if nothing is true."""
    values, order = scores.flatten().double().sort(descending=True)
    hits = truth.flatten()[order].double().cumsum(0)
    last = torch.cat(
        [values[1:] != values[:-1], values.new_ones(1, dtype=torch.bool)]
    )  # of equal values
    recalled, precision = (
        hits[last],
        (hits / torch.arange(1, len(hits) + 1, device=hits.device))[last],
    )
    gained = recalled.diff(prepend=recalled.new_zeros(1))
    return float((gained * precision).sum() / hits[-1].clamp(min=1))


def pointing(word: PixelMap, truth: CellMask) -> bool:
    return bool(truth.flatten()[word.argmax()])


def inside(word: PixelMap, region: CellMask) -> float:
    """Share of the mass in a mask, or in a box drawn as one; 0 for a map of zeros."""
    return float(word[region].sum() / word.sum().clamp(min=torch.finfo(word.dtype).tiny))


@dataclass(frozen=True)
class TwoClass:
    """Accuracy, mean IoU of foreground and background, average precision."""

    accuracy: float
    miou: float
    ap: float


def two_class(word: PixelMap, truth: Area) -> TwoClass:
    full = F.interpolate(word[None, None], truth.shape, mode="nearest")[0, 0]
    mask = full > full.mean()
    scaled = (full - full.min()) / (full.max() - full.min()).clamp(min=torch.finfo(full.dtype).tiny)
    both = average_precision(torch.stack([scaled, 1 - scaled]), torch.stack([truth, ~truth]))
    return TwoClass(
        float((mask == truth).double().mean()), (iou(mask, truth) + iou(~mask, ~truth)) / 2, both
    )
