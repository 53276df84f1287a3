"""Parses, pictures and messages as HTML."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

from PIL import Image

from attncontrol.app.asked import Asked
from attncontrol.app.made import Shown
from attncontrol.app.parsed import Parsed
from attncontrol.batch.short_forms import Box
from attncontrol.errors import JobError
from attncontrol.jobs.making import told
from attncontrol.maps.draw import faded, overlay

INKS = ("#e5484d", "#3b82f6", "#2da44e", "#a855f7", "#d97706")
SMALL = 192
"""Pixels of what is shown small."""
_NAMES = {"record": "words", "source": "second prompt"}
"""Fields of an entry, as the form calls them."""


def wrong(error: Exception) -> str:
    """What is wrong with the form, or what failed."""
    text = told(error)
    if isinstance(error, JobError):
        pairs = [(getattr(each, "field", ""), getattr(each, "text", "")) for each in error.wrong]
        lines = [f"{_NAMES.get(name, name)}: {what}".lstrip(": ") for name, what in pairs]
        text = "\n".join(dict.fromkeys(lines)) or text
    else:
        text = text.partition(": ")[2] or text
    return f'<div class="ac-error" role="alert">{escape(text).replace(chr(10), "<br>")}</div>'


def note(text: str) -> str:
    return f'<div class="ac-note" role="status">{escape(text)}</div>' if text else ""


def parse(found: Parsed) -> str:
    """The subjects with their modifiers, and what is left out."""
    parts = []
    for group in found.subjects:
        *modifiers, noun = group.split("+")
        before = f"{escape(', '.join(modifiers))} → " if modifiers else ""
        parts.append(f"{before}<b>{escape(noun)}</b>")
    if not parts:
        parts.append("no noun: choose words yourself")
    if found.left_out:
        parts.append(f"left out: {escape(', '.join(found.left_out))}")
    return f'<div class="ac-parse">{"; ".join(parts)}</div>'


def results(asked: Asked, made: Mapping[int, Sequence[Shown]]) -> str:
    """Every seed a row of its arms: the picture, and below it what each word attends to."""
    rows = []
    for seed, arms in made.items():
        shown = "".join(_arm(asked, each) for each in arms)
        rows.append(
            f'<section class="ac-seed"><h3>seed {seed}</h3><div class="ac-arms">{shown}</div>'
            "</section>"
        )
    return "".join(rows)


def _arm(asked: Asked, shown: Shown) -> str:
    item, last = shown.item, asked.last[0]
    boxes = last.boxes or (last.regions if item.method == last.method else {})
    other = last.source is not None and len({last.source, last.prompt}) > 1
    prompt = f'<div class="ac-prompt">{escape(item.prompt)}</div>' if other else ""
    small = thumbnail(shown.image, SMALL)
    tiles = [(word, overlay(small, one)) for word, one in shown.maps.items()]
    if shown.cells is not None:
        tiles.append(("pale: of source", faded(small, shown.cells)))
    words = "".join(_tile(word, image) for word, image in tiles)
    return (
        f'<div class="ac-arm" data-arm="{escape(shown.arm)}"><figure><figcaption>'
        f"<b>{escape(shown.arm)}</b>{prompt}</figcaption>"
        f'<div class="ac-picture">{_image(shown.image, f"{item.prompt}, {shown.arm}")}'
        f'{"".join(_boxes(boxes))}</div></figure><div class="ac-words">{words}</div></div>'
    )


def _tile(word: str, image: Image.Image) -> str:
    shown = _image(image, f"map of {word}")
    return f"<figure>{shown}<figcaption>{escape(word)}</figcaption></figure>"


def _boxes(boxes: Mapping[str, Box]) -> Iterator[str]:
    for (word, (left, top, right, bottom)), ink in zip(boxes.items(), cycle(INKS), strict=False):
        place = f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"
        yield f'<div class="ac-box" style="{place};border-color:{ink}"><b>{escape(word)}</b></div>'


def _image(image: Image.Image, said: str) -> str:
    return f'<img src="{address(image)}" alt="{escape(said)}">'


def thumbnail(image: Image.Image, longest: int) -> Image.Image:
    small = image.convert("RGB")
    small.thumbnail((longest, longest))
    return small


def address(image: Image.Image) -> str:
    """A picture in itself."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def losses(made: Mapping[int, Sequence[Shown]]) -> list[dict[str, Any]]:
    """Rows of the chart: those of the last arm that has some."""
    return [
        {"step": step, "loss": loss, "seed": f"seed {seed}"}
        for seed, arms in made.items()
        for step, loss in enumerate(arms[-1].losses, 1)
    ]
