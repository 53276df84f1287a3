"""Pictures of a whole record: words over steps, heads of all layers, an animation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from attncontrol.errors import CouplingError, UnsupportedError
from attncontrol.maps.draw import grid, overlay
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.step import mean_of

_GROUND = 224  # gray, where a record has no picture


def write_pictures(maps: AttentionMaps, folder: Path) -> list[Path]:
    """``words.png`` for every image, and where these axes were kept ``steps.png``, ``steps.gif``
    and ``heads.WORD.png``.

    Raises UnsupportedError for other directions than image->text, and for videos.
    """
    maps = replace(maps, layers=dict(maps.layers))  # those on disk are read once
    _check(maps)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for image in range(len(maps.prompts)):
        mark = f".{image}" if len(maps.prompts) > 1 else ""
        for name, picture in _sheets(maps, image):
            written.append(folder / f"{name}{mark}.png")
            picture.save(written[-1])
        if _kept_steps(maps):
            written.append(folder / f"steps{mark}.gif")
            first, *rest = animation(maps, image)
            first.save(written[-1], save_all=True, append_images=rest, duration=160, loop=0)
    return written


def _sheets(maps: AttentionMaps, image: int) -> Iterator[tuple[str, Image.Image]]:
    yield "words", words_sheet(maps, image)
    if _kept_steps(maps):
        yield "steps", steps_sheet(maps, image)
    if all(of_layer.shape[3] == maps.sites[name].heads for name, of_layer in maps.layers.items()):
        for k, word in enumerate(maps.labels[image]):
            yield f"heads.{word.replace(' ', '-').replace('/', '-')}", heads_sheet(maps, k, image)


def words_sheet(maps: AttentionMaps, image: int = 0) -> Image.Image:
    """The picture and the overlay of every word in one row, mean over layers, heads and steps."""
    ground, mean = _ground(maps, image), maps.mean()[image]
    tiles = [ground, *(overlay(ground, mean[..., k]) for k in range(len(maps.labels[image])))]
    title = f"{maps.prompts[image]}: mean over layers, heads and steps; each map from its minimum to its maximum"
    return grid({"": tiles}, ["", *maps.labels[image]], title=title)


def word_sheet(maps: AttentionMaps, word: str) -> Image.Image:
    """A word over the picture of every image in one row; each map from its minimum to its maximum.

    Raises UnsupportedError as ``write_pictures``.
    """
    _check(maps)
    tiles = [overlay(_ground(maps, image), one) for image, one in enumerate(maps[word])]
    return grid({word: tiles}, [""] * len(tiles), cell=256)


def steps_sheet(maps: AttentionMaps, image: int = 0, columns: int = 8) -> Image.Image:
    """A row per word, at most ``columns`` steps spread over the run; one scale for each word, from
    0 to its largest value."""
    ground, of_steps = _ground(maps, image), over_layers(maps, image)
    chosen = sorted(
        {round(k) for k in np.linspace(0, len(of_steps) - 1, min(columns, len(of_steps)))}
    )
    rows = {}
    for k, word in enumerate(maps.labels[image]):
        high = float(of_steps[..., k].max())
        rows[f"{word} (to {high:.2g})"] = [
            overlay(ground, of_steps[step, ..., k], low=0.0, high=high) for step in chosen
        ]
    names = [f"step {maps.steps[step]}, t {maps.timesteps[step]:.0f}" for step in chosen]
    return grid(
        rows,
        names,
        title=f"{maps.prompts[image]}: mean over layers and heads; the scale of each word from 0 to the value given",
    )


def heads_sheet(maps: AttentionMaps, word: int, image: int = 0) -> Image.Image:
    """A row per layer, a column per head, mean over steps; each map from its minimum to its
    maximum."""
    most = max(of_layer.shape[3] for of_layer in maps.layers.values())
    blank = Image.new("RGB", (96, 96), "white")
    rows = {}
    for name, of_layer in maps.layers.items():
        of_heads = of_layer[image, 0].mean(0)[..., word]
        tiles = [overlay(Image.new("L", _shape(one), 0), one) for one in of_heads]
        rows[name] = [*tiles, *[blank] * (most - len(tiles))]
    title = f"{maps.labels[image][word]} in: {maps.prompts[image]}; mean over steps, each map from its minimum to its maximum"
    return grid(rows, [str(head) for head in range(most)], cell=96, title=title)


def animation(maps: AttentionMaps, image: int = 0) -> list[Image.Image]:
    """One frame per step: the overlays of all words side by side, one scale for each word over the
    whole run."""
    ground, of_steps = _ground(maps, image), over_layers(maps, image)
    highs = of_steps.amax((0, 1, 2)).tolist()
    frames = []
    for step, number in enumerate(maps.steps):
        tiles = [
            overlay(ground, of_steps[step, ..., k], low=0.0, high=high)
            for k, high in enumerate(highs)
        ]
        frames.append(
            grid({f"step {number:2d}": tiles}, list(maps.labels[image]), title=maps.prompts[image])
        )
    return frames


def over_layers(maps: AttentionMaps, image: int) -> Tensor:
    """[step height width token]: mean over layers and heads on the finest grid; one step where the
    mean over steps was recorded."""
    if not maps.layers:
        raise CouplingError(
            "nothing is recorded yet; the maps are complete when the record(...) block ends"
        )
    return mean_of(
        [of_layer[image, 0].mean(1) for of_layer in maps.layers.values()], len(maps.layers)
    )


def drawable(maps: AttentionMaps) -> bool:
    """Attention of pictures, not videos, to text."""
    return (
        maps.direction == "image->text"
        and bool(maps.layers)
        and next(iter(maps.layers.values())).ndim == 7
    )


def _check(maps: AttentionMaps) -> None:
    if maps.layers and not drawable(maps):
        raise UnsupportedError(
            f"pictures are drawn of the attention of pictures to text, not of {maps.direction} or videos"
        )


def _kept_steps(maps: AttentionMaps) -> bool:
    return len(maps.steps) > 1 and all(
        of_layer.shape[2] == len(maps.steps) for of_layer in maps.layers.values()
    )


def _shape(one: Tensor) -> tuple[int, int]:
    scale = 96 / max(one.shape)
    return round(one.shape[1] * scale), round(one.shape[0] * scale)


def _ground(maps: AttentionMaps, image: int) -> Image.Image:
    if len(maps.pictures):
        return maps.pictures[image]
    height, width = max(
        (of_layer.shape[-3:-1] for of_layer in maps.layers.values()),
        key=lambda side: side[0] * side[1],
    )
    scale = 256 / max(height, width)
    return Image.new("RGB", (round(width * scale), round(height * scale)), (_GROUND,) * 3)
