"""Boxes and masks of a picture on a grid of cells."""

import math
from typing import Annotated, Any

import torch
from torch import Tensor

from attncontrol.attention.layout import Layout
from attncontrol.checks.arguments import Such
from attncontrol.errors import EditError, SettingError

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in fractions of the picture."""
Region = (
    Annotated[Box, Such("a box (left, top, right, bottom) in fractions of the picture")]
    | Annotated[Tensor, Such("a mask [height width]")]
)
"""A box, or a mask [height width] of any size."""


def require_region(region: Any, name: str = "the region") -> None:
    """Raises SettingError for a box that is empty or outside the picture, and for a mask that is
    empty or holds anything but shares, 0 .. 1."""
    if isinstance(region, Tensor):
        if region.ndim != 2 or region.is_complex() or not region.any():
            raise SettingError(f"the mask of {name} is empty, or is not [height width]")
        if not ((region >= 0) & (region <= 1)).all():  # NaN is neither
            raise SettingError(
                f"the mask of {name} must hold True and False, or numbers between 0 and 1, not "
                f"{region.min().item():.4g} to {region.max().item():.4g}"
            )
        return
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        wrong = [
            f"{small} ({a:g}) must be less than {large} ({b:g})"
            for small, a, large, b in (
                ("left", left, "right", right),
                ("top", top, "bottom", bottom),
            )
            if a >= b
        ]
        raise SettingError(
            f"the box of {name} must be (left, top, right, bottom) in fractions of the picture, "
            f"not {region}" + f": {' and '.join(wrong)}" * bool(wrong)
        )  # fmt: skip


def coverage(region: Region, height: int, width: int) -> Tensor:
    """What share of every cell of a grid a box or mask covers [height width], float64."""
    if isinstance(region, Tensor):
        mask = region.to(torch.float64)[None, None]
        return torch.nn.functional.adaptive_avg_pool2d(mask, (height, width))[0, 0]
    left, top, right, bottom = region
    return _covered(top, bottom, height)[:, None] * _covered(left, right, width)


def grown(region: Region, by: float) -> Region:
    """A box or mask that is larger by a share of the picture to each side."""
    if isinstance(region, Tensor):
        height, width = (round(by * size) for size in region.shape)
        mask = region.to(torch.float64)[None, None]
        size, padding = (2 * height + 1, 2 * width + 1), (height, width)
        return torch.nn.functional.max_pool2d(mask, size, 1, padding)[0, 0]
    left, top, right, bottom = region
    return (max(left - by, 0.0), max(top - by, 0.0), min(right + by, 1.0), min(bottom + by, 1.0))


def centre_of(region: Region | None) -> tuple[float, float]:
    """Where the centre of a box, mask or (None) picture is, (across, down)."""
    if isinstance(region, Tensor):
        weight = region.to(torch.float64) / region.sum()
        across, down = ((torch.arange(n, dtype=weight.dtype) + 0.5) / n for n in region.shape[::-1])
        return float(weight.sum(0).cpu() @ across), float(weight.sum(1).cpu() @ down)
    left, top, right, bottom = region or (0.0, 0.0, 1.0, 1.0)
    return (left + right) / 2, (top + bottom) / 2


def onto(mask: Tensor, latents: Tensor, layout: Layout) -> Tensor:
    """A mask [height width], or [frame height width] of a video, of the nearest of its cells, for
    the latents of one image, whose layout it is: of [image channel *grid] or [image cell channel].
    Latents may lack the first frames, which are given then. Raises EditError if they have others
    among them."""
    grid = layout.grid
    numbers = mask.reshape(-1, 1, *mask.shape[-2:]).to(torch.float64)
    fine = torch.nn.functional.interpolate(numbers, grid[-2:], mode="nearest")[:, 0].to(mask.dtype)
    count = math.prod(grid[:-2])
    if count > len(fine):
        whole = 1 if layout.references and len(fine) > 1 else count // len(fine)
        _require_own(count, whole * len(fine), len(fine), "frames")
    fine = fine.repeat_interleave(max(count // len(fine), 1), 0)[-count:]
    if latents.ndim != 3:
        return fine.reshape(grid)
    _require_own(latents.shape[1], fine.numel(), fine.numel(), "cells")
    return fine.flatten()[:, None]


def _require_own(count: int, known: int, own: int, what: str) -> None:
    """Raises EditError."""
    if count != known:
        raise EditError(
            f"the latents have {count} {what}, of which {own} are the video: an edit that blends "
            "latents cannot tell which of them are pictures that are given"
        )


def softly(mask: Tensor, pictures: Tensor) -> Tensor:
    """How much of every pixel is inside of a mask [*frame height width]: all of its cells, fading
    over one and a half beside them; of parts of cells, so that there are 16 across at least. Frames
    of a video between two of its mask are in both."""
    parts = math.ceil(16 / min(mask.shape[-2:]))
    fine = mask.repeat_interleave(parts, -2).repeat_interleave(parts, -1)
    frames = fine.reshape(-1, 1, *fine.shape[-2:]).to(pictures)
    wide = torch.nn.functional.max_pool2d(frames, 3, 1, 1)
    share = torch.nn.functional.interpolate(wide, tuple(pictures.shape[-2:]), mode="bilinear")[:, 0]
    if mask.ndim == 2:
        return share[0]
    last = max(pictures.shape[-3] - 1, 1)
    steps = torch.arange(pictures.shape[-3]) * (len(share) - 1)
    return torch.maximum(share[steps // last], share[-(-steps // last)])


def on_grid(region: Region, height: int, width: int) -> Tensor:
    """Which cells of a grid a box or mask covers: those by more than half, and at least the cell
    that it covers most."""
    share = coverage(region, height, width)
    return (share > 0.5) | (share == share.max())


def _covered(start: float, stop: float, cells: int) -> Tensor:
    """How much of every cell of an axis lies between two fractions."""
    edges = torch.arange(cells + 1, dtype=torch.float64) / cells
    return (edges[1:].clamp(max=stop) - edges[:-1].clamp(min=start)).clamp(min=0) * cells
