"""Pictures of attention: overlays, labelled grids, sheets of words. Arrays in, PIL images out.

Maps are whatever numpy reads as an array, such as tensors on the CPU. A map of NaN, of a step or a
site that did not run, draws nothing.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in 0 .. 1."""

_INKS = ("#d7191c", "#2c5fc3", "#1a7f37", "#8a3ffc", "#b35900")
_HEAT = np.array(
    [(13, 8, 80), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)], dtype=np.float64
)
_GAP, _TOP = 6, 30  # pixels between cells, and of a line of labels


def heat(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] to uint8 colours, dark blue through red to yellow; values outside are
    clipped."""
    stops = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(values, stops, _HEAT[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def overlay(
    picture: Image.Image, word_map: Any, *, low: float | None = None, high: float | None = None
) -> Image.Image:
    """The picture, dimmed, under a map [height width] resized to it.

    ``low``..``high`` is the range shown (default: minimum and maximum of the map); equal values
    everywhere show as the lowest. Of a map of NaN only the picture is shown.
    """
    values = np.asarray(word_map, np.float32)
    values = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(values).all():
        return picture.convert("RGB")
    low = float(np.nanmin(values)) if low is None else low
    high = float(np.nanmax(values)) if high is None else high
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    scaled = np.nan_to_num(scaled, nan=0.0).astype(np.float32)
    resized = Image.fromarray(scaled, "F").resize(picture.size, Image.Resampling.BICUBIC)
    large = np.asarray(resized).clip(0, 1)
    ground = np.asarray(picture.convert("L"), dtype=np.float64)[..., None].repeat(3, -1)
    strength = 0.35 + 0.45 * large[..., None]
    mixed = (1 - strength) * ground + strength * heat(large)
    return Image.fromarray(mixed.round().astype(np.uint8), "RGB")


def boxed(picture: Image.Image, boxes: Mapping[str, Box]) -> Image.Image:
    """The picture, 384 pixels long, with boxes and their words, in a colour each."""
    font, marked = ImageFont.load_default(20), _scaled(picture.convert("RGB"), 384)
    draw = ImageDraw.Draw(marked)
    width, height = marked.size
    for (word, (left, top, right, bottom)), color in zip(boxes.items(), cycle(_INKS), strict=False):
        corners = (left * width, top * height, right * width - 1, bottom * height - 1)
        draw.rectangle(corners, outline=color, width=3)
        at = (corners[0] + 6, corners[1] + 3)
        draw.text(at, word, color, font, stroke_width=2, stroke_fill="white")
    return marked


def faded(picture: Image.Image, cells: Any) -> Image.Image:
    """The picture, pale and gray where ``cells`` [height width] are True."""
    mask = Image.fromarray(np.asarray(cells, bool)).resize(picture.size, Image.Resampling.NEAREST)
    gray = np.asarray(picture.convert("L"), dtype=np.float64)[..., None].repeat(3, -1)
    pale = (0.35 * gray + 0.65 * 255).round()
    own = np.asarray(picture.convert("RGB"))
    shown = np.where(np.asarray(mask)[..., None], pale, own)
    return Image.fromarray(shown.astype(np.uint8), "RGB")


def grid(
    rows: Mapping[str, Sequence[Image.Image]],
    columns: Sequence[str],
    *,
    cell: int = 192,
    title: str = "",
) -> Image.Image:
    """Labelled grid: one row of pictures per key, each picture fitted into a square cell."""
    font = ImageFont.load_default(15)
    title, columns, names = _line(title), [*map(_line, columns)], [*map(_line, rows)]
    left = 24 + max((int(font.getlength(label)) for label in names), default=0)
    top, pitch = _TOP * (2 if title else 1), cell + _GAP
    width = max(left + len(columns) * pitch, left + int(font.getlength(title)))
    canvas = Image.new("RGB", (width, top + len(rows) * pitch), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((12, 8), title, "black", font)
    for c, label in enumerate(columns):
        draw.text((left + c * pitch + cell // 2, top - 22), label, "black", font, anchor="ma")
    for r, (label, pictures) in enumerate(zip(names, rows.values(), strict=True)):
        y = top + r * pitch
        draw.text((12, y + cell // 2), label, "black", font, anchor="lm")
        for c, picture in enumerate(pictures):
            fitted = _scaled(picture, cell)
            x = left + c * pitch
            at = (x + (cell - fitted.width) // 2, y + (cell - fitted.height) // 2)
            canvas.paste(fitted, at)
    return canvas


def plane(height: int, width: int, *, longest: int = 256, gray: int = 224) -> Image.Image:
    """One gray in the shape of a grid, to draw on where there is no picture."""
    scale = longest / max(height, width)
    return Image.new("RGB", _rounded(width * scale, height * scale), (gray,) * 3)


def words_sheet(
    pictures: Sequence[Image.Image],
    ground: Image.Image,
    maps: Any,
    words: Sequence[str],
    title: str = "",
) -> Image.Image:
    """``pictures`` and the overlay of every word, maps [height width word], in one row; each map
    from its minimum to its maximum."""
    maps = np.asarray(maps)
    tiles = [*pictures, *(overlay(ground, maps[..., k]) for k in range(len(words)))]
    return grid({"": tiles}, [*[""] * len(pictures), *words], title=title)


def word_sheet(grounds: Sequence[Image.Image], maps: Any, word: str) -> Image.Image:
    """One word, maps [image height width], over every picture in one row; each map from its
    minimum to its maximum."""
    tiles = [overlay(ground, one) for ground, one in zip(grounds, maps, strict=True)]
    return grid({word: tiles}, [""] * len(tiles), cell=256)


def _scaled(picture: Image.Image, longest: int) -> Image.Image:
    scale = longest / max(picture.size)
    size = _rounded(picture.width * scale, picture.height * scale)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _rounded(width: float, height: float) -> tuple[int, int]:
    """At least a pixel."""
    return max(1, round(width)), max(1, round(height))


def _line(text: str) -> str:
    """A text that is drawn: one line, not longer than a page."""
    return textwrap.shorten(text, 300, placeholder=" ...")
