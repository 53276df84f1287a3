"""A picture of a job again, and whether it is the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attncontrol.errors import ResultsError
from attncontrol.jobs import begun
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import source_of
from attncontrol.jobs.keeping import opened, pixels_of
from attncontrol.jobs.making import Failed, Maker, parts_of
from attncontrol.jobs.pictures import calls
from attncontrol.jobs.places import Folder
from attncontrol.verbs.about import versions


@dataclass(frozen=True)
class Earlier:
    """A picture that is to be made again. ``rows`` are those of the call that made it, as far as
    its folder still tells; else ``alone`` is true. ``others``: versions that are not those here."""

    item: Item
    image: Image.Image
    pixels: str
    rows: tuple[Item, ...]
    alone: bool
    others: tuple[str, ...]


@dataclass(frozen=True)
class Repeated:
    """``difference`` is the largest of a colour of a pixel, 0 to 255; ``changed``: the file is not
    what was written."""

    image: Image.Image
    same: bool
    difference: int
    changed: bool


def earlier(file: Path) -> Earlier:
    """What a picture tells. Raises ResultsError for a file that is none of a job."""
    try:
        found = opened(file.read_bytes())
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {error.strerror}") from error
    if found is None:
        raise ResultsError(
            f"{file} does not tell how it was made: give a PNG that attncontrol batch wrote"
        )
    image, about = found
    item = about["item"]
    rows = _rows(file.absolute().parent.parent, item, about["batch"])
    told = about["versions"] if isinstance(about["versions"], Mapping) else {}
    others = tuple(
        f"{name} {told.get(name)}, here {version}"
        for name, version in versions().items()
        if told.get(name) != version
    )
    alone = [item] if item.source is None else [source_of(item), item]
    return Earlier(item, image, about["pixels"], tuple(rows or alone), rows is None, others)


def repeat(before: Earlier, device: str = "cpu") -> Repeated:
    """Makes it again among those that it was made with. Raises ResultsError if that fails."""
    made = Maker(device).make(before.rows, {before.item.name})
    (found,) = made
    if isinstance(found, Failed):
        raise ResultsError(f"the picture cannot be made again: {found.error}")
    return Repeated(
        found.image,
        pixels_of(found.image) == before.pixels,
        _difference(found.image, before.image),
        pixels_of(before.image) != before.pixels,
    )


def _rows(folder: Path, item: Item, batch: list[Any]) -> list[Item] | None:
    """The rows of a call of this size that had the item at this place."""
    of_folder = begun.opened(Folder(folder))
    for of_plan in of_folder.plan if of_folder else ():
        if item not in of_plan.items:
            continue
        for part in parts_of(of_plan.items):
            for rows in calls(part):
                place = rows.index(item) if item in rows else None
                if [len(rows), place] == batch:
                    return rows
    return None


def _difference(one: Image.Image, other: Image.Image) -> int:
    if one.size != other.size or one.mode != other.mode:
        return 255
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())
