"""A record beside an edit: its sources and their edits, side by side, and what these took over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attncontrol.inspector import payload
from attncontrol.inspector.layers import groups
from attncontrol.inspector.quantise import atlas, floats
from attncontrol.inspector.wording import Shown, shown_words
from attncontrol.maps.images import images_of
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.taken import TakenOver
from attncontrol.prompts.alignment import align

CHANGE = " \u2192 "
"""Between what both prompts say in the same place."""
Names = Mapping[str, str]
"""Of words on the page, by their own names."""


@dataclass(frozen=True)
class Pair:
    """Image k of the first is the source of image k of the second."""

    sides: tuple[AttentionMaps, AttentionMaps]

    def names(self, side: int) -> list[Names]:
        """Words that stand for each other have one name in both: "red -> blue"."""
        count = len(self.sides[0].prompts)
        both = [_names(*self.sides, image) for image in range(count)]
        return [of_image[side] for of_image in both]


def pair_of(maps: AttentionMaps) -> Pair | None:
    """None if no image is an edit of another."""
    pairs = maps.taken.pairs if maps.taken else ()
    if not pairs:
        return None
    sources, edited = (images_of(maps, numbers) for numbers in zip(*pairs, strict=True))
    return Pair((sources.replace(taken=None), edited))


def renamed(words: Sequence[Shown], names: Names) -> tuple[Shown, ...]:
    return tuple(replace(word, name=names.get(word.name, word.name)) for word in words)


def _names(source: AttentionMaps, edited: AttentionMaps, image: int) -> tuple[Names, Names]:
    """Of a source and of its edit."""
    texts = [maps.tokens[image] if maps.tokens else () for maps in (source, edited)]
    if not all(texts):
        return {}, {}
    matrix = align(*map(tuple, texts), source.prompts[image], edited.prompts[image]).matrix
    places = [_places(maps, image) for maps in (source, edited)]
    first, second = {}, {}
    for name, positions in places[1].items():
        met = {
            other: float(matrix[list(of)][:, list(positions)].sum())
            for other, of in places[0].items()
            if of and positions
        }
        twin = max(met, key=lambda other: met[other], default=None)
        if twin is not None and twin != name and met[twin] > 0 and twin not in first:
            first[twin] = second[name] = f"{twin}{CHANGE}{name}"
    return first, second


def _places(maps: AttentionMaps, image: int) -> dict[str, tuple[int, ...]]:
    """Positions of the words that a page shows."""
    words = shown_words(maps, image, most=payload.WORDS)
    return {word.name: maps.spans[image][word.index].positions for word in words}


def taken_over(
    maps: AttentionMaps, axes: payload.Axes, detail: payload.Detail
) -> dict[str, Any] | None:
    """JSON of what images took from their sources:

    cells  two atlas entries: [image height width], the share of the steps in which the latents of a
           cell were the source's, and [image step height width]; None if not known
    words  [group][image][word][mean, step ...], which share of the attention to a word was the
           source's, mean over the layers of the group; None if no edit said so
    """
    if maps.taken is None:
        return None
    count = len(maps.steps)
    parts = payload.bins(count, detail.steps)
    cells, words = maps.taken.cells, None
    if maps.taken.words:
        found = [_of_group(maps.taken, g.layers, axes, parts) for g in groups(axes.grids)]
        words = floats(np.concatenate([each.numpy().ravel() for each in found]))
    if cells is None:
        return {"cells": None, "words": words}
    each = torch.stack([cells[:, part].float().mean(1) for part in parts], 1)
    whole = cells.float().mean(1)
    return {"cells": atlas([whole.numpy(), each.numpy()]), "words": words}


def _of_group(
    taken: TakenOver, layers: Sequence[str], axes: payload.Axes, parts: Sequence[Sequence[int]]
) -> Tensor:
    """[image word 1 + step]."""
    nothing = torch.zeros_like(next(iter(taken.words.values())))
    mean = torch.stack([taken.words.get(name, nothing) for name in layers]).mean(0)
    of_words = torch.stack(
        [of_image[:, list(index)].T for of_image, index in zip(mean, axes.words, strict=True)]
    )
    steps = [of_words[..., list(part)].mean(-1) for part in parts]
    return torch.stack([of_words.mean(-1), *steps], -1)
