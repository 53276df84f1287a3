"""Small functions on attention maps that losses and recorders share."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from attncontrol.axes import CellMask, CellMasks, Means, PixelMap, SpatialMaps, TokenMaps, WordMap
from attncontrol.errors import SettingError
from attncontrol.prompts.tokens import Span, Subject

Middles = Float[Tensor, "height width xy"]
Distances = Float[Tensor, "token token"]
Resized = Float[Tensor, "batch new_height new_width token"]


def resize(maps: TokenMaps, height: int, width: int) -> Resized:
    """Bilinear resize of the spatial axes (pixel centres aligned, no antialiasing)."""
    if maps.shape[1:3] == (height, width):
        return maps
    resized = F.interpolate(
        maps.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=False
    )
    return resized.permute(0, 2, 3, 1)


def finest(grids: Iterable[Sequence[int]]) -> tuple[int, int]:
    """The (height, width) with the most cells."""
    height, width = max(grids, key=lambda grid: grid[0] * grid[1])
    return height, width


def grid_names(grids: Iterable[Sequence[int]]) -> str:
    """ "grids 16 x 16 and 8 x 8", each once, the finest first."""
    each = sorted({tuple(grid) for grid in grids}, key=lambda grid: -grid[0] * grid[1])
    *others, last = (f"{height} x {width}" for height, width in each)
    return f"grids {', '.join(others)} and {last}" if others else f"grid {last}"


def mean_where_known(maps: Sequence[Tensor]) -> Means:
    """Mean of maps [*leading height width token] on the finest of their grids, of those that are
    not NaN; NaN where all are."""
    height, width = finest(of.shape[-3:-1] for of in maps)
    total: Any = 0.0
    count: Any = 0
    for of in maps:
        fine = resize(of.flatten(0, -4), height, width).unflatten(0, of.shape[:-3])
        known = ~fine.isnan()
        total, count = total + fine.where(known, 0.0), count + known.to(fine.dtype)
    return total / count


def symmetric_kl(maps: SpatialMaps) -> Distances:
    """(KL(p_a || p_b) + KL(p_b || p_a)) / 2 between all tokens, p being a map divided by its sum;
    at least 1e-12 everywhere."""
    flat = maps.flatten(0, 1).T
    p = (flat / flat.sum(1, keepdim=True).clamp(min=1e-12)).clamp(min=1e-12)
    p = p / p.sum(1, keepdim=True)
    cross = p @ p.log().T
    kl = cross.diagonal()[:, None] - cross
    return (kl + kl.T) / 2


def cosine_distances(maps: SpatialMaps) -> Distances:
    """1 - cosine similarity between the maps of all tokens."""
    unit = F.normalize(maps.flatten(0, 1).T, dim=1)
    return 1 - unit @ unit.T


def summed(maps: SpatialMaps, words: Sequence[Span | Subject]) -> list[PixelMap]:
    """The map of every word: the sum over its tokens."""
    return [maps[..., list(word.positions)].sum(-1) for word in words]


def per_word(maps: SpatialMaps, spans: Sequence[Span]) -> list[PixelMap]:
    """The map of every word: the sum over its tokens, divided by its maximum."""
    return [word / word.amax().clamp(min=1e-12) for word in summed(maps, spans)]


def overlap(a: PixelMap, b: PixelMap) -> Tensor:
    """sum min(a, b) / sum (a + b): 0 for disjoint maps, 1/2 for equal ones."""
    return torch.minimum(a, b).sum() / (a + b).sum().clamp(min=1e-12)


def of_words(maps: SpatialMaps, spans: Sequence[Span], parts: Sequence[slice]) -> WordMap:
    """[word height width]: Attend-and-Excite's sharpened and smoothed maps, mean over the tokens of
    every word."""
    sharp = smooth(sharpen(maps[None], parts)[0].permute(2, 0, 1))
    return torch.stack([sharp[list(span.positions)].mean(0) for span in spans])


def otsu(maps: WordMap) -> CellMasks:
    """The cells of each map above the threshold that parts its values best: largest variance
    between the two classes.

    Exact, from the sorted values; the usual implementations use 256 bins. All cells of a constant
    map.
    """
    values = maps.detach().flatten(1).double()
    ordered = values.sort(1).values
    count, below = values.shape[1], torch.arange(1, values.shape[1] + 1, device=maps.device)
    low = ordered.cumsum(1)
    high = low[:, -1:] - low
    between = below * (count - below) * (low / below - high / (count - below).clamp(min=1)) ** 2
    threshold = ordered.gather(1, between.argmax(1, keepdim=True))
    above = (values > threshold) | (ordered[:, :1] == ordered[:, -1:])
    return above.unflatten(1, maps.shape[1:])


def peak_region(word: PixelMap) -> CellMask:
    """The connected part of the Otsu mask (cells that share a side) that holds the largest value,
    without gradient."""
    (mask,) = otsu(word[None])
    parts = torch.from_numpy(ndimage.label(mask.cpu().numpy())[0]).to(word.device)
    return parts == parts.flatten()[word.argmax()]


def second_peak(word: PixelMap) -> Tensor:
    """The largest value outside ``peak_region``; 0 unless it exceeds the smallest value inside, as
    only another part of the Otsu mask does."""
    region = peak_region(word)
    outside = (word * ~region).max()
    return outside * (outside > word[region].min())


def smooth(maps: WordMap, sigma: float = 0.5) -> WordMap:
    """3 x 3 Gaussian with reflected borders, taps proportional to exp(-(d / (2 sigma))^2).

    This is the kernel of the official Attend-and-Excite code and its descendants; a Gaussian of
    standard deviation s has exp(-d^2 / (2 s^2)), so the effective deviation is sqrt(2) sigma: 0.707
    for 0.5, taps (0.2119, 0.5761, 0.2119). Raises SettingError for maps a single cell high or wide.
    """
    if min(maps.shape[-2:]) < 2:
        raise SettingError(
            f"maps of {maps.shape[-2]} x {maps.shape[-1]} cells cannot be smoothed: make a larger "
            "picture, or choose sites of a smaller stride with where=..."
        )
    distance = torch.arange(-1, 2, device=maps.device, dtype=maps.dtype)
    taps = torch.exp(-((distance / (2 * sigma)) ** 2))
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    padded = F.pad(maps[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel[None, None])[:, 0]


def sharpen(maps: TokenMaps, parts: Sequence[slice], temperature: float = 100.0) -> TokenMaps:
    """softmax of temperature * maps over the tokens of each of the ``parts``; 0 for tokens of no
    part.

    Attend-and-Excite's contrast between tokens, where the one part is everything but the first and
    the last position of the text sequence. It saturates: probabilities of 0.08 and 0.02 already
    become 0.998 and 0.002.
    """
    sharp = torch.zeros_like(maps)
    for part in parts:
        sharp[..., part] = (temperature * maps[..., part]).softmax(-1)
    return sharp


def unit_range(values: PixelMap) -> PixelMap:
    """(A - min A) / (max A - min A)."""
    return (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)


def shape(word: PixelMap) -> PixelMap:
    """Soft outline of a word's map: unit_range(sigmoid(10 (unit_range(A) - 1/2))), 0 .. 1."""
    return unit_range((10 * (unit_range(word) - 0.5)).sigmoid())


def size(word: PixelMap) -> Tensor:
    """Share of the picture."""
    return shape(word).mean()


def cell_middles(height: int, width: int, like: Tensor) -> Middles:
    """(x, y) of the middle of every cell of a grid, in fractions of the picture."""
    y = ((torch.arange(height, device=like.device).to(like) + 0.5) / height)[:, None].expand(
        height, width
    )
    x = ((torch.arange(width, device=like.device).to(like) + 0.5) / width).expand(height, width)
    return torch.stack([x, y], -1)


def centroid(word: PixelMap) -> Tensor:
    """(x, y) of the centre of mass."""
    height, width = word.shape
    return (word[..., None] * cell_middles(height, width, word)).sum((0, 1)) / word.sum().clamp(
        min=1e-12
    )
