"""Overlays of word maps and labelled grids of pictures, as PIL images."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_INKS = ("#d7191c", "#2c5fc3", "#1a7f37", "#8a3ffc", "#b35900")
_HEAT = np.array(
    [(13, 8, 80), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)], dtype=np.float64
)


def heat(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] to uint8 colours, dark blue through red to yellow; values outside are
    clipped."""
    stops = np.linspace(0, 1, len(_HEAT))
    return (
        np.stack([np.interp(values, stops, _HEAT[:, c]) for c in range(3)], -1)
        .round()
        .astype(np.uint8)
    )


def overlay(
    picture: Image.Image, word_map: Tensor, *, low: float | None = None, high: float | None = None
) -> Image.Image:
    """The picture, dimmed, under a word map [height width] resized to it.

    ``low``..``high`` is the range shown (default: minimum and maximum of the map); equal values
    everywhere show as the lowest.
    """
    values = word_map.detach().float().cpu().numpy()
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    large = np.asarray(
        Image.fromarray(scaled.astype(np.float32), "F").resize(
            picture.size, Image.Resampling.BICUBIC
        )
    ).clip(0, 1)
    ground = np.asarray(picture.convert("L"), dtype=np.float64)[..., None].repeat(3, -1)
    strength = 0.35 + 0.45 * large[..., None]
    return Image.fromarray(
        ((1 - strength) * ground + strength * heat(large)).round().astype(np.uint8), "RGB"
    )


def boxed(
    picture: Image.Image, boxes: Mapping[str, tuple[float, float, float, float]]
) -> Image.Image:
    """The picture, 384 pixels long, with boxes (left, top, right, bottom in 0 .. 1) and their
    words, in a colour each."""
    scale, font = 384 / max(picture.size), ImageFont.load_default(20)
    marked = picture.convert("RGB").resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
    )
    draw = ImageDraw.Draw(marked)
    for (word, (left, top, right, bottom)), color in zip(boxes.items(), cycle(_INKS), strict=False):
        corners = (
            left * marked.width,
            top * marked.height,
            right * marked.width - 1,
            bottom * marked.height - 1,
        )
        draw.rectangle(corners, outline=color, width=3)
        draw.text(
            (corners[0] + 6, corners[1] + 3), word, color, font, stroke_width=2, stroke_fill="white"
        )
    return marked


def grid(
    rows: Mapping[str, Sequence[Image.Image]],
    columns: Sequence[str],
    *,
    cell: int = 192,
    title: str = "",
) -> Image.Image:
    """Labelled grid: one row of pictures per key, each picture fitted into a square cell."""
    font = ImageFont.load_default(15)
    left, top, gap = (
        24 + max(int(font.getlength(label)) for label in rows),
        30 + (30 if title else 0),
        6,
    )
    width = left + len(columns) * (cell + gap)
    canvas = Image.new(
        "RGB",
        (max(width, left + int(font.getlength(title))), top + len(rows) * (cell + gap)),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((12, 8), title, "black", font)
    for c, label in enumerate(columns):
        draw.text(
            (left + c * (cell + gap) + cell // 2, top - 22), label, "black", font, anchor="ma"
        )
    for r, (label, pictures) in enumerate(rows.items()):
        y = top + r * (cell + gap)
        draw.text((12, y + cell // 2), label, "black", font, anchor="lm")
        for c, picture in enumerate(pictures):
            scale = cell / max(picture.size)
            fitted = picture.resize(
                (round(picture.width * scale), round(picture.height * scale)),
                Image.Resampling.LANCZOS,
            )
            canvas.paste(
                fitted,
                (
                    left + c * (cell + gap) + (cell - fitted.width) // 2,
                    y + (cell - fitted.height) // 2,
                ),
            )
    return canvas
