"""How much the maps of words overlap, and whether modifiers look where their nouns look.

    cosine          <a, b> / (|a| |b|); 1 for equal maps
    iou             |A and B| / |A or B| of their masks, Otsu's unless another method is given
    symmetric_kl    (KL(a || b) + KL(b || a)) / 2 of maps divided by their sum; 0 for equal maps
    agreement       of every modifier: its overlap with its own noun, and the largest one with
                    another noun

Two nouns that share their cells are merged or neglected (Chefer et al. 2023, arXiv 2301.13826); a
modifier that lies on another noun leaks (Rassin et al. 2023, arXiv 2306.08877). Which modifiers
belong to which nouns is read from the parse of the prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attncontrol.analysis.aggregate import merge, on_axis
from attncontrol.axes import Means, WordMaps
from attncontrol.checks.arguments import checked
from attncontrol.maps import functional
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.prompts.syntax import Entity, Word, analyse
from attncontrol.prompts.words import span_at

WordPairs = Float[Tensor, "word word"]

Measure = Callable[[Tensor], Tensor]
"""Maps [word height width] -> [word word]."""


def cosine(maps: WordMaps) -> WordPairs:
    """0 with a map of zeros."""
    return 1 - functional.cosine_distances(maps.permute(1, 2, 0))


def iou(maps: WordMaps, method: Callable[[Tensor], Tensor] = functional.otsu) -> WordPairs:
    masks = method(maps).flatten(1).to(maps)
    both = masks @ masks.T
    areas = masks.sum(1)
    return both / (areas[:, None] + areas - both).clamp(min=1)


def symmetric_kl(maps: WordMaps) -> WordPairs:
    """Of maps that are at least 1e-12 everywhere."""
    return functional.symmetric_kl(maps.permute(1, 2, 0))


@dataclass(frozen=True)
class Agreement:
    """Overlap of a modifier with its noun (``own``) and with that of the other nouns which it
    overlaps most (``other``, None if there is no other noun)."""

    modifier: str
    noun: str
    own: float
    other: float | None


@checked
def agreement(
    maps: AttentionMaps,
    measure: Measure = cosine,
    *,
    layers: Callable[[AttentionMaps], Means] = AttentionMaps.mean,
) -> tuple[tuple[Agreement, ...], ...]:
    """For every image the modifiers of its prompt, from a recording of all tokens (``words=None``);
    more ``measure`` is nearer.

    Raises WordError if the recording is one of words.
    """
    parsed = [analyse(prompt) for prompt in maps.prompts]
    words = [
        list(dict.fromkeys(word for e in entities for word in (e.noun, *e.modifiers)))
        for entities in parsed
    ]
    spans = [
        [span_at(read, w.text, w.start, w.end, prompt) for w in own]
        for read, own, prompt in zip(maps.tokens, words, maps.prompts, strict=True)
    ]
    agreements: list[tuple[Agreement, ...]] = []
    for mean, entities, own, positions in zip(
        layers(maps), parsed, words, on_axis(maps, spans), strict=True
    ):
        if not entities:
            agreements.append(())
            continue
        near = measure(merge(mean[None], [positions])[0].permute(2, 0, 1))
        agreements.append(_compared(entities, own, near))
    return tuple(agreements)


def _compared(
    entities: tuple[Entity, ...], words: list[Word], near: Tensor
) -> tuple[Agreement, ...]:
    nouns = torch.tensor([words.index(entity.noun) for entity in entities])
    rows = []
    for entity in entities:
        others = nouns[nouns != words.index(entity.noun)]
        for modifier in entity.modifiers:
            overlaps = near[words.index(modifier)]
            other = float(overlaps[others].max()) if len(others) else None
            rows.append(
                Agreement(
                    modifier.text,
                    entity.noun.text,
                    float(overlaps[words.index(entity.noun)]),
                    other,
                )
            )
    return tuple(rows)
