"""Pictures of a whole record: words over steps, heads of all layers, an animation."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from attncontrol.maps.draw import grid, overlay, plane
from attncontrol.maps.functional import mean_where_known
from attncontrol.maps.recorded import AttentionMaps

_SIDE = 96  # pixels of the map of a head


def write_pictures(maps: AttentionMaps, folder: Path) -> list[Path]:
    """``words.png`` for every image, and where these axes were kept ``steps.png``, ``steps.gif``
    and ``heads.WORD.png``.

    Raises RecordError for other directions than image->text, and for videos.
    """
    maps.require_drawable()
    maps = maps.replace(layers=dict(maps.layers))  # those on disk are read once
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
    yield "words", maps.sheet(image)
    if _kept_steps(maps):
        yield "steps", steps_sheet(maps, image)
    if all(shape[3] == maps.sites[name].heads for name, shape in maps.shapes.items()):
        for k, word in enumerate(maps.labels[image]):
            yield f"heads.{word.replace(' ', '-').replace('/', '-')}", heads_sheet(maps, k, image)


def steps_sheet(maps: AttentionMaps, image: int = 0, columns: int = 8) -> Image.Image:
    """A row per word, at most ``columns`` steps spread over the run; one scale for each word, from
    0 to its largest value."""
    ground, of_steps = maps.ground(image), over_layers(maps, image)
    chosen = sorted(
        {round(k) for k in np.linspace(0, len(of_steps) - 1, min(columns, len(of_steps)))}
    )
    rows = {
        f"{word} (to {high:.2g})": [
            overlay(ground, of_steps[step, ..., k], low=0.0, high=high) for step in chosen
        ]
        for k, (word, high) in enumerate(zip(maps.labels[image], _highs(of_steps), strict=False))
    }
    names = [f"step {maps.steps[step]}, t {maps.timesteps[step]:.0f}" for step in chosen]
    return grid(
        rows,
        names,
        title=f"{maps.prompts[image]}: mean over layers and heads; "
        "the scale of each word from 0 to the value given",
    )


def heads_sheet(maps: AttentionMaps, word: int, image: int = 0) -> Image.Image:
    """A row per layer, a column per head, mean over steps; each map from its minimum to its
    maximum."""
    most = max(shape[3] for shape in maps.shapes.values())
    blank = Image.new("RGB", (_SIDE, _SIDE), "white")
    rows = {}
    for name, of_layer in maps.layers.items():
        of_heads = of_layer[image, 0].nanmean(0)[..., word]
        black = plane(*of_heads.shape[1:], longest=_SIDE, gray=0)
        tiles = [overlay(black, of_head) for of_head in of_heads]
        rows[name] = [*tiles, *[blank] * (most - len(tiles))]
    title = (
        f"{maps.labels[image][word]} in: {maps.prompts[image]}; "
        "mean over steps, each map from its minimum to its maximum"
    )
    return grid(rows, [str(head) for head in range(most)], cell=_SIDE, title=title)


def animation(maps: AttentionMaps, image: int = 0) -> list[Image.Image]:
    """One frame per step: the overlays of all words side by side, one scale for each word over the
    whole run."""
    ground, of_steps = maps.ground(image), over_layers(maps, image)
    highs = _highs(of_steps)
    words = list(maps.labels[image])
    return [
        grid(
            {f"step {number:2d}": [
                overlay(ground, of_steps[step, ..., k], low=0.0, high=high)
                for k, high in enumerate(highs)
            ]},
            words,
            title=maps.prompts[image],
        )
        for step, number in enumerate(maps.steps)
    ]  # fmt: skip


def over_layers(maps: AttentionMaps, image: int) -> Tensor:
    """[step height width token]: mean over layers and heads on the finest grid, of the layers that
    ran in a step; one step where the mean over steps was recorded."""
    return mean_where_known([of_layer[image, 0].mean(1) for of_layer in maps.layers.values()])


def _highs(of_steps: Tensor) -> list[float]:
    """The largest value of every word."""
    return of_steps.nan_to_num(nan=0.0).amax((0, 1, 2)).tolist()


def _kept_steps(maps: AttentionMaps) -> bool:
    return len(maps.steps) > 1 and all(
        shape[2] == len(maps.steps) for shape in maps.shapes.values()
    )
