"""Pictures of a whole record: words over steps, heads of all layers, an animation."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from attncontrol.checks.arguments import checked
from attncontrol.export.arrays import distinct
from attncontrol.maps.draw import grid, overlay, plane
from attncontrol.maps.functional import mean_where_known
from attncontrol.maps.opened import path_of
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.shown import titled
from attncontrol.writing import whole

_SIDE = 96  # pixels of the map of a head
_MADE = "attncontrol export"


@checked
def write_pictures(maps: AttentionMaps, folder: Path | str) -> list[Path]:
    """``words.png`` for every image, and where these axes were kept ``steps.png``, ``steps.gif``
    and ``heads.WORD.png``.

    A folder of them that is there is named in a warning and replaced. Raises WriteError for one
    that holds anything else; RecordError for other directions than image->text, and for videos.
    """
    maps.require_drawable()
    path = path_of(folder)
    with whole(path, holds_sheets, inputs=maps.files) as part:
        part.mkdir()
        maps = maps.replace(layers=dict(maps.layers))  # those on disk are read once
        for image in range(len(maps.prompts)):
            mark = f".{image}" if len(maps.prompts) > 1 else ""
            for name, picture in _sheets(maps, image):
                picture.save(part / f"{name}{mark}.png", pnginfo=_mark())
            if _kept_steps(maps):
                first, *rest = animation(maps, image)
                first.save(
                    part / f"steps{mark}.gif", save_all=True, append_images=rest, duration=160,
                    loop=0, comment=_MADE.encode(),
                )  # fmt: skip
        names = sorted(file.name for file in part.iterdir())
    return [path / name for name in names]


def _mark() -> PngInfo:
    """By which the pictures are known as made here."""
    info = PngInfo()
    info.add_text("Software", _MADE)
    return info


def holds_sheets(folder: Path) -> bool:
    return folder.is_dir() and all(map(_is_sheet, folder.iterdir()))


def _is_sheet(file: Path) -> bool:
    try:
        with Image.open(file, formats=("PNG", "GIF")) as picture:
            return _MADE in (picture.info.get("Software"), _text(picture.info.get("comment")))
    except (OSError, ValueError, SyntaxError):
        return False


def _text(comment: bytes | str | None) -> str | None:
    return comment.decode("latin-1") if isinstance(comment, bytes) else comment


def _sheets(maps: AttentionMaps, image: int) -> Iterator[tuple[str, Image.Image]]:
    yield "words", maps.sheet(image)
    if _kept_steps(maps):
        yield "steps", steps_sheet(maps, image)
    if all(shape[3] == maps.sites[name].heads for name, shape in maps.shapes.items()):
        for k, name in enumerate(file_names(maps.labels[image])):
            yield f"heads.{name}", heads_sheet(maps, k, image)


def file_names(words: Sequence[str]) -> list[str]:
    """Of words, each another one: small letters, digits, "-" and "#"."""
    plain = [re.sub(r"[^\w#]+", "-", word.lower()).strip("-")[:60] or "-" for word in words]
    return distinct(plain)


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
        for k, (word, high) in enumerate(
            zip(distinct(maps.labels[image]), _highs(of_steps), strict=False)
        )
    }
    names = [f"step {maps.steps[step]}, t {maps.timesteps[step]:.0f}" for step in chosen]
    return grid(
        rows,
        names,
        title=titled(
            maps,
            image,
            "mean over layers and heads; each word from 0 to the value given",
        ),
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
    said = "mean over steps, each map from its minimum to its maximum"
    title = f"{maps.labels[image][word]} in: {titled(maps, image, said)}"
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
            title=titled(maps, image),
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
