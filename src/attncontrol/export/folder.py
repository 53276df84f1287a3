"""A folder of results: pictures, overlays of word maps, comparison grids."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attncontrol.maps.draw import Box, boxed, grid, overlay


def stem_of(prompt: str) -> str:
    """How the files of a prompt begin."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]


def write(
    out: Path,
    prompt: str,
    words: Sequence[str],
    made: Mapping[str, Sequence[Any]],
    find: Callable[[Any], Sequence[Iterable[Any]]] | None,
    boxes: Mapping[str, Box],
) -> list[dict[str, Any]]:
    """Writes the pictures of one prompt by method, their overlays and the comparison grid; returns
    one record per picture.

    ``find`` names what a picture shows, for pictures of the bundled models; ``boxes`` are drawn in
    the comparison.
    """
    stem = stem_of(prompt)
    records = []
    for name, pictures in made.items():
        maps_file = out / f"{stem}.{name}.maps.png"
        title = f"{prompt} ({name}); each map from its minimum to its maximum"
        grid(_overlays(pictures, words), _seeds(pictures), title=title).save(maps_file)
        for picture in pictures:
            file = out / f"{stem}.{name}.{picture.seed}.png"
            picture.image.save(file)
            record = {
                key: value for key, value in vars(picture).items() if key not in ("image", "maps")
            }
            found = None if find is None else [finding.noun for finding in find([picture.image])[0]]
            records.append(
                record | {"file": file.name, "maps_file": maps_file.name, "found": found}
            )
    if len(made) > 1:
        rows = {
            name: [boxed(picture.image, boxes) if boxes else picture.image for picture in pictures]
            for name, pictures in made.items()
        }
        seeds = _seeds(next(iter(made.values())))
        grid(rows, seeds, title=prompt).save(out / f"{stem}.compare.png")
    return records


def _overlays(pictures: Sequence[Any], words: Sequence[str]) -> dict[str, list[Any]]:
    rows = {"picture": [picture.image for picture in pictures]}
    for word in words:
        rows[word] = [overlay(picture.image, picture.maps[word]) for picture in pictures]
    return rows


def _seeds(pictures: Sequence[Any]) -> list[str]:
    return [f"seed {picture.seed}" for picture in pictures]
