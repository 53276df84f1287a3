"""Recordings in words and in notebooks."""

import html
import io
from base64 import b64encode
from collections.abc import Iterable
from typing import Any

from PIL import Image

from attncontrol.errors import SettingError
from attncontrol.maps import draw
from attncontrol.maps.functional import finest, grid_names


def titled(maps: Any, image: int, said: str = "") -> str:
    """What stands over drawings of an image: whether the record is partial, the prompt, and what is
    drawn."""
    partial = f"partial, {maps.partial}. " if maps.partial else ""
    return f"{partial}{maps.prompts[image]}" + (f": {said}" if said else "")


def ground(maps: Any, image: int) -> Image.Image:
    """See ``AttentionMaps.ground``."""
    count = len(maps.prompts)
    if not isinstance(image, int) or not -count <= image < count:
        raise SettingError(f"image={image!r}: the record has {count}, numbered from 0")
    if not len(maps.pictures):
        return draw.plane(*finest(shape[-3:-1] for shape in maps.shapes.values()))
    return maps.pictures[image]


def words(maps: Any) -> list[str]:
    """Of all images, each once."""
    return [*dict.fromkeys(label for labels in maps.labels for label in labels)]


def word_sheet(maps: Any, word: str | int) -> Image.Image:
    """See ``AttentionMaps.show``."""
    grounds = [maps.ground(i) for i in range(len(maps.prompts))]
    return draw.word_sheet(grounds, maps[word], str(word))


def sheet(maps: Any, image: int) -> Image.Image:
    """See ``AttentionMaps.sheet``."""
    under = ground(maps, image)
    title = titled(maps, image, "mean of all; each map from its minimum to its maximum")
    pictures = [under] if len(maps.pictures) else []
    return draw.words_sheet(pictures, under, maps.mean()[image], maps.labels[image], title)


def require_pictures(pictures: Any, count: int) -> None:
    """Raises SettingError for other than ``count`` PIL images of one size, or none."""
    some = list(pictures) if isinstance(pictures, Iterable) else [pictures]
    if some and (len(some) != count or not all(isinstance(each, Image.Image) for each in some)):
        kinds = ", ".join(sorted({type(each).__name__ for each in some}))
        raise SettingError(
            f"maps.pictures are {count} PIL images, one for each prompt, not {len(some)} of {kinds}"
        )
    sizes = sorted({f"{width} x {height}" for width, height in (each.size for each in some)})
    if len(sizes) > 1:
        raise SettingError(f"maps.pictures have one size, not {' and '.join(sizes)}")


def described(maps: Any) -> str:
    """Images, steps, sites, words and size."""
    named = words(maps)
    shown = ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
    return (
        f"AttentionMaps({len(maps.prompts)} images, {len(maps.steps)} steps, "
        f"{len(maps.shapes)} sites on {grid_names(s[-3:-1] for s in maps.shapes.values())}, "
        f"{maps.direction}: {shown}; {maps.nbytes / 1e6:.1f} MB"
        f"{'; partial: ' + maps.partial if maps.partial else ''})"
    )


def png(maps: Any) -> bytes:
    """The sheet of the first image."""
    stream = io.BytesIO()
    maps.sheet().save(stream, "png")
    return stream.getvalue()


def page(picture: bytes, said: str) -> str:
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    return f'<img src="{source}"><pre style="white-space:pre-wrap">{html.escape(said)}</pre>'
