"""What edited images have of the images that they are edits of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

CELLS = "taken"
"""The tensor of a file; those of words have a slash and the name of their site after it."""


@dataclass(frozen=True, eq=False)
class TakenOver:
    """``sources`` are the numbers of the images that each image takes from, its own if from none.

    ``cells`` uint8 [image step height width] are 1 where the latents after a recorded step were
    those of the source; None of a video. ``words``, by site [image step token], are the shares of
    the attention to each word that were the source's, 0 .. 1, at sites where edits said so. Steps
    are those recorded, also where maps are means over them.
    """

    sources: tuple[int, ...]
    cells: Tensor | None = None
    words: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(source, edited)."""
        return tuple((of, image) for image, of in enumerate(self.sources) if of != image)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """As they are in a file."""
        words = {f"{CELLS}/{name}": of.float().contiguous() for name, of in self.words.items()}
        return words if self.cells is None else {CELLS: self.cells.contiguous(), **words}


def joined(parts: Sequence[tuple[Sequence[int], Mapping[str, Tensor]]]) -> TakenOver | None:
    """Of the sources and the tensors of files that follow each other in steps; sites that are in
    some alone took nothing in the others. None if there are no sources."""
    sources = tuple(parts[0][0])
    if not sources:
        return None
    tensors = [of for _, of in parts]
    names = dict.fromkeys(name for each in tensors for name in each)
    whole = {}
    for name in names:
        some = next(each[name] for each in tensors if name in each)
        nothing = torch.zeros_like(some[:, :1])
        whole[name] = torch.cat([each.get(name, nothing) for each in tensors], 1)
    cells = whole.pop(CELLS, None)
    words = {name.removeprefix(f"{CELLS}/"): of for name, of in whole.items()}
    return TakenOver(sources, cells, words)


def wrong_sources(sources: Sequence[int], images: int) -> str | None:
    """What a header says against itself."""
    if not sources:
        return None
    if len(sources) != images or not all(0 <= of < images for of in sources):
        return f"sources {list(sources)} of {images} images"
    if loose := [of for of in sources if sources[of] != of]:
        return f"the source {loose[0]}, which has one itself"
    return None


def expected(kept: Mapping[str, Any], header: Any) -> dict[str, Any]:
    """The tensors in a file that are of this kind, by name (type, shape), as they would have to
    be."""
    if not header.sources:
        return {}
    several = len(header.images), len(header.steps)
    texts = (header.images, *header.others.values())
    words = {max(len(image.words) for image in images) for images in texts if images}
    found = {}
    for name in names_in(kept):
        shape = tuple(kept[name][1][2:])
        if name == CELLS:
            found[name] = "U8", (*several, *(shape if len(shape) == 2 and min(shape) else (1, 1)))
        elif name.partition("/")[2] in {site.name for site in header.sites}:
            found[name] = "F32", (*several, *(shape if {*shape} <= words else (max(words),)))
    return found


def names_in(kept: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name in kept if name == CELLS or name.startswith(f"{CELLS}/"))
