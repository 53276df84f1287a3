"""Recordings in words and in notebooks."""

import html
import io
from base64 import b64encode
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
    own = image % count < len(maps.pictures)
    if not own or not isinstance(maps.pictures[image % count], Image.Image):
        raise SettingError(
            f"maps.pictures are {count} PIL images, one for each prompt, not "
            f"{len(maps.pictures)} of {type(maps.pictures[0]).__name__}; () shows the maps alone"
        )
    return maps.pictures[image % count]


def described(maps: Any) -> str:
    """Images, steps, sites, words and size."""
    words = maps._words
    shown = ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")
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
