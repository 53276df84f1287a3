"""Which way of reading attention finds the objects best: methods scored on pictures whose masks are
known.

Each picture is noised to every timestep; what is recorded there goes to every method, and so does
the record of all timesteps together, as its steps. The map [height width] of a word against the
mask of what it names:

    iou                   |P and T| / |P or T|, P the Otsu mask of the map resized bilinearly to the
                          size of the mask
    pointing              the peak of the resized map lies in T
    accuracy, miou, ap    ``segment.two_class``, the protocol of ConceptAttention
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.analysis import aggregate
from attncontrol.analysis.edges import along_edges
from attncontrol.analysis.grounding import Example, shown
from attncontrol.analysis.propagation import How, foreground, propagated
from attncontrol.analysis.segment import iou, pointing, two_class
from attncontrol.attention.between import Direction
from attncontrol.axes import WordMaps
from attncontrol.checks.arguments import Count, Index, checked
from attncontrol.maps.functional import otsu
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.verbs.picture import record_pictures

Method = Callable[..., Tensor]
"""One recording of one picture per direction looked at -> [word height width]."""
Looks = Mapping[Direction, Mapping[str, Any]]
"""Directions of attention, each with its options of ``record_pictures``."""


@dataclass(frozen=True)
class WordScore:
    """One word of one picture; ``timestep`` is None for all of them together."""

    method: str
    timestep: float | None
    picture: int
    word: str
    iou: float
    pointing: bool
    accuracy: float
    miou: float
    ap: float


@dataclass(frozen=True)
class Summary:
    """Means over ``n`` words of pictures."""

    method: str
    timestep: float | None
    iou: float
    pointing: float
    accuracy: float
    miou: float
    ap: float
    n: int


def _first(of: Callable[[AttentionMaps], Tensor]) -> Method:
    return lambda maps, *_: of(maps)[0].permute(2, 0, 1)


METHODS: Mapping[str, Method] = {
    "mean": _first(AttentionMaps.mean),
    "per resolution": _first(aggregate.per_resolution),
    "daam": _first(aggregate.daam),
    "daam, divided by the words": _first(lambda maps: aggregate.daam(maps, normalise=True)),
}


def of_layers(method: Method, names: Collection[str]) -> Method:
    """The method on some layers alone, such as those that localise words."""

    def of(words: AttentionMaps, *rest: AttentionMaps) -> Tensor:
        return method(words.replace(layers={name: words.layers[name] for name in names}), *rest)

    return of


@checked
def propagating(
    method: Method, times: Index = 1, how: How = "gather", *, cut: float | None = 0.0
) -> Method:
    """The method's maps carried along attention among cells, and of them what ``foreground`` leaves
    above ``cut``, all if None.

    For ``looks`` of "image->text" and "image->image", in this order.
    """

    def of(words: AttentionMaps, cells: AttentionMaps) -> Tensor:
        carried = propagated(method(words), cells, times=times, how=how)
        return carried if cut is None else foreground(carried, cut)

    return of


@checked
def along(method: Method, *, cut: float | None = 0.5) -> Method:
    """The method's maps along the edges of the picture, and of them what ``foreground`` leaves
    above ``cut``, all if None."""

    def of(words: AttentionMaps, *rest: AttentionMaps) -> Tensor:
        sharp = along_edges(method(words, *rest), np.asarray(words.pictures[0]))
        return sharp if cut is None else foreground(sharp, cut)

    return of


@checked
def evaluate(
    pipe: Any,
    examples: Sequence[Example],
    methods: Mapping[str, Method] = METHODS,
    *,
    timesteps: Sequence[float] = (700.0, 500.0, 300.0),
    looks: Looks = {"image->text": {"keep": ("head",)}},  # noqa: B006 - never changed
    batch: Count = 16,
    seed: int = 0,
    **call: Any,
) -> list[WordScore]:
    """Scores of every method, at every timestep and at all of them together, for every word of
    every example.

    ``call`` goes to the pipeline. Raises WordError if a word is not in its prompt.
    """
    scores: list[WordScore] = []
    for start in range(0, len(examples), batch):
        chunk = examples[start : start + batch]
        records = [
            _recorded(pipe, chunk, looks, timestep=timestep, seed=seed + start, **call)
            for timestep in timesteps
        ]
        together = (
            [[joined(parts) for parts in zip(*records, strict=True)]] if len(timesteps) > 1 else []
        )
        for timestep, of_time in zip((*timesteps, None), records + together, strict=False):
            for i, example in enumerate(chunk):
                mine = [of_image(maps, i) for maps in of_time]
                for name, method in methods.items():
                    scores += scored(
                        method(*mine), example, method=name, timestep=timestep, picture=start + i
                    )
    return scores


def _recorded(
    pipe: Any, examples: Sequence[Example], looks: Looks, **options: Any
) -> list[AttentionMaps]:
    """One recording per direction."""
    return [
        record_pictures(pipe, **shown(examples), direction=direction, **own, **options)
        for direction, own in looks.items()
    ]


@checked
def summarise(scores_of_words: Sequence[WordScore]) -> list[Summary]:
    """One row per method and timestep, in order."""
    groups: dict[tuple[str, float | None], list[WordScore]] = {}
    for row in scores_of_words:
        groups.setdefault((row.method, row.timestep), []).append(row)
    summaries = []
    for (method, timestep), rows in groups.items():
        scores = [(row.iou, row.pointing, row.accuracy, row.miou, row.ap) for row in rows]
        overlap, peak, accuracy, miou, ap = np.mean(scores, axis=0).tolist()
        summaries.append(Summary(method, timestep, overlap, peak, accuracy, miou, ap, len(rows)))
    return summaries


def joined(records: Sequence[AttentionMaps]) -> AttentionMaps:
    """Recordings of the same pictures as the steps of one."""
    first = records[0]
    return first.replace(
        layers={
            name: torch.cat([maps.layers[name] for maps in records], 2) for name in first.layers
        },
        steps=tuple(range(sum(len(maps.steps) for maps in records))),
        timesteps=tuple(t for maps in records for t in maps.timesteps),
        sigmas=tuple(s for maps in records for s in maps.sigmas),
    )


def of_image(maps: AttentionMaps, image: int) -> AttentionMaps:
    """The recording of one image of a batch, without the filling of its token axis."""
    words = len(maps.spans[image]) or None  # attention among cells has no words
    return maps.replace(
        layers={
            name: of_layer[image : image + 1, ..., :words] for name, of_layer in maps.layers.items()
        },
        prompts=maps.prompts[image : image + 1],
        tokens=maps.tokens[image : image + 1],
        spans=maps.spans[image : image + 1],
        pictures=maps.pictures[image : image + 1],
    )


@checked
def scored(
    words: WordMaps,
    example: Example,
    *,
    method: str,
    timestep: float | None = None,
    picture: int = 0,
) -> list[WordScore]:
    """Maps of the words of an example, however they were made, such as those of
    ``concepts_of_picture``."""
    rows = []
    for map_, (word, mask) in zip(words, example.masks.items(), strict=True):
        truth = torch.from_numpy(mask)
        full = F.interpolate(map_[None, None], mask.shape, mode="bilinear", align_corners=False)[0]
        both = two_class(map_, truth)
        overlap, peak = iou(otsu(full)[0], truth), pointing(full[0], truth)
        rows.append(
            WordScore(
                method, timestep, picture, word, overlap, peak, both.accuracy, both.miou, both.ap
            )
        )
    return rows
