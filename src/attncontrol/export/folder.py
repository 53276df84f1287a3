"""A folder of results: pictures that tell how they were made, overlays of word maps, grids."""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from attncontrol.export.names import name_of, sheet_of
from attncontrol.maps.draw import Box, boxed, grid, overlay
from attncontrol.writing import put

_MARK, _SOFTWARE = "attncontrol", 0x0131  # a text of PNG, and what EXIF calls the program


def save(
    image: Image.Image,
    file: Path,
    about: Mapping[str, Any],
    ours: Callable[[Path], bool] | None = None,
) -> str:
    """Writes a picture, with ``about`` as JSON inside (a PNG: its text "attncontrol"), unless the
    file is that already; returns the SHA-256 of the file. ``ours`` is that of ``writing.whole``."""
    data = encoded(image, file.suffix, about)
    put(file, data, ours)
    return hashlib.sha256(data).hexdigest()


def encoded(image: Image.Image, suffix: str, about: Mapping[str, Any]) -> bytes:
    """The file that ``save`` writes."""
    stream = io.BytesIO()
    if suffix.lower() == ".png":
        info = PngInfo()
        info.add_text(_MARK, json.dumps(about))
        image.save(stream, "png", pnginfo=info)
    else:
        exif = Image.Exif()
        exif[_SOFTWARE] = _MARK
        kind = Image.registered_extensions()[suffix.lower()]
        image.convert("RGB").save(stream, kind, exif=exif)
    return stream.getvalue()


def told_by(picture: Image.Image) -> str | None:
    """The text that ``save`` put into a PNG."""
    found = picture.info.get(_MARK)
    return None if found is None else str(found)


def is_picture(file: Path) -> bool:
    """Whether ``save`` wrote it."""
    try:
        with Image.open(file) as picture:
            return _MARK in picture.info or picture.getexif().get(_SOFTWARE) == _MARK
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def write(
    out: Path,
    prompt: str,
    words: Sequence[str],
    made: Mapping[str, Sequence[Any]],
    find: Callable[[Any], Sequence[Iterable[Any]]] | None,
    boxes: Mapping[str, Box],
    about: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Writes the pictures of one prompt by method, with ``about`` in each, overlays of their maps
    and, of two methods, a grid of both; returns one record per picture.

    ``find`` names what a picture shows, for pictures of the bundled models; ``boxes`` are drawn in
    the comparison.
    """
    seeds = [picture.seed for picture in next(iter(made.values()))]
    of_sheet = {**about, "prompt": prompt, "seeds": seeds}
    digests = {}
    for name, sheet in _sheets(prompt, words, made, boxes, seeds).items():
        digests[name] = save(sheet, out / name, of_sheet)
    compared = sheet_of(prompt, "compare", seeds) if len(made) > 1 else None
    records = []
    for method, pictures in made.items():
        maps = sheet_of(prompt, f"{method}.maps", seeds)
        of_both = {name: digests[name] for name in (maps, compared) if name}
        for picture in pictures:
            asked = {"prompt": prompt, "method": method, "seed": picture.seed}
            file = name_of(prompt, method, picture.seed)
            files = {"file": file, "maps_file": maps, "compare_file": compared}
            digest = {file: save(picture.image, out / file, {**about, **asked})}
            found = None if find is None else [finding.noun for finding in find([picture.image])[0]]
            rest = {"sha256": digest | of_both, "found": found}
            records.append(asked | files | rest | _measured(picture))
    return records


def _sheets(
    prompt: str,
    words: Sequence[str],
    made: Mapping[str, Sequence[Any]],
    boxes: Mapping[str, Box],
    seeds: Sequence[int],
) -> dict[str, Image.Image]:
    """Overlays of every method and, of two, their pictures in one grid; by file."""
    sheets, columns = {}, [f"seed {seed}" for seed in seeds]
    for method, pictures in made.items():
        title = f"{prompt} ({method}); each map from its minimum to its maximum"
        name = sheet_of(prompt, f"{method}.maps", seeds)
        sheets[name] = grid(_overlays(pictures, words), columns, title=title)
    if len(made) > 1:
        rows = {
            method: [boxed(picture.image, boxes) if boxes else picture.image for picture in row]
            for method, row in made.items()
        }
        sheets[sheet_of(prompt, "compare", seeds)] = grid(rows, columns, title=prompt)
    return sheets


def _measured(picture: Any) -> dict[str, Any]:
    """Memory that was not measured is None."""
    values = {name: getattr(picture, name) for name in ("losses", "refinements", "seconds")}
    return values | {"memory": None if math.isnan(picture.memory) else picture.memory}


def _overlays(pictures: Sequence[Any], words: Sequence[str]) -> dict[str, list[Any]]:
    rows = {"picture": [picture.image for picture in pictures]}
    for word in words:
        rows[word] = [overlay(picture.image, picture.maps[word]) for picture in pictures]
    return rows
