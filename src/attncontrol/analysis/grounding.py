"""How well word maps hit the objects they name: per site, per head and per timestep, on pictures
whose masks are known.

Each picture is encoded and noised to the level of a denoising step; one forward of the conditional
branch gives its maps.

    pointing   share of words whose map peaks inside the object's mask
    iou        mean |H and M| / |H or M|, where H is the map above half its range and M the mask

Maps are resized bilinearly to the size of the mask.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.analysis.segment import above, iou, pointing
from attncontrol.attention.sites import TEXT, Where
from attncontrol.checks.arguments import Count, checked
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.verbs.picture import record_pictures

ALL = "all sites"


@dataclass(frozen=True)
class Example:
    """A picture (height, width, 3) uint8, its prompt, and for each word the mask (height, width) of
    what it names."""

    picture: np.ndarray
    prompt: str
    masks: dict[str, np.ndarray]


@checked
def shown(examples: Sequence[Example]) -> dict[str, Any]:
    """The arguments of ``record_pictures``."""
    return {
        "pictures": [example.picture for example in examples],
        "prompts": [example.prompt for example in examples],
        "words": [tuple(example.masks) for example in examples],
    }


@dataclass(frozen=True)
class Score:
    """``site`` is a module path, or ``all sites`` for the mean of all. ``head`` None is the mean of
    the heads."""

    site: str
    head: int | None
    timestep: float
    pointing: float
    iou: float
    n: int


@checked
def score_sites(
    pipe: Any,
    examples: Sequence[Example],
    *,
    timesteps: Sequence[float] = (800.0, 600.0, 400.0, 200.0),
    heads: bool = False,
    where: Where = TEXT,
    batch: Count = 16,
    seed: int = 0,
    **call: Any,
) -> list[Score]:
    """Scores of every site, each timestep by itself, with ``heads`` also of every head.

    ``call`` goes to the pipeline. Raises WordError if a word is not in its prompt.
    """
    options: dict[str, Any] = {"where": where, "keep": ("head",)} | call
    hits: dict[tuple[str, int | None, float], list[tuple[bool, float]]] = {}
    for start in range(0, len(examples), batch):
        chunk = examples[start : start + batch]
        for timestep in timesteps:
            maps = record_pictures(
                pipe, **shown(chunk), timestep=timestep, seed=seed + start, **options
            )
            for key, of_images in _grouped(maps, heads):
                kept = hits.setdefault((*key, timestep), [])
                for example, word_maps in zip(chunk, of_images, strict=True):
                    kept += [
                        _score(word, mask)
                        for word, mask in zip(word_maps, example.masks.values(), strict=True)
                    ]
    rows = []
    for (site, head, timestep), scored in hits.items():
        peaks, overlaps = np.mean(scored, axis=0)
        rows.append(Score(site, head, timestep, float(peaks), float(overlaps), len(scored)))
    return rows


def mean_over_timesteps(scores: Sequence[Score]) -> list[Score]:
    """One score per site and head; its timestep is the mean of theirs."""
    groups: dict[tuple[str, int | None], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.site, score.head), []).append(score)
    rows = []
    for (site, head), of in groups.items():
        timestep, pointing, iou = np.mean(
            [(s.timestep, s.pointing, s.iou) for s in of], axis=0
        ).tolist()
        rows.append(Score(site, head, timestep, pointing, iou, of[0].n))
    return rows


def _grouped(
    maps: AttentionMaps, heads: bool
) -> Iterator[tuple[tuple[str, int | None], list[Tensor]]]:
    """[word height width] of every picture, for all sites together, every site and, if asked, every
    head."""

    def cut(of_sites: Tensor) -> list[Tensor]:
        """[image height width token] without the filling."""
        return [
            of[..., : len(spans)].permute(2, 0, 1)
            for of, spans in zip(of_sites, maps.spans, strict=True)
        ]

    yield (ALL, None), cut(maps.mean())
    for site, of_site in maps.layers.items():
        yield (site, None), cut(of_site[:, 0, 0].mean(1))
        for head in range(of_site.shape[3] if heads else 0):
            yield (site, head), cut(of_site[:, 0, 0, head])


def _score(word: Tensor, mask: np.ndarray) -> tuple[bool, float]:
    """(peak inside, overlap) of one map."""
    full = F.interpolate(word[None, None], mask.shape, mode="bilinear")[0, 0]
    truth = torch.from_numpy(mask)
    return pointing(full, truth), iou(above(full[None])[0], truth)
