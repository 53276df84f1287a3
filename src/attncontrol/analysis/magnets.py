"""Where attention goes that names nothing: special tokens, stop words, and global sinks (after
RefAM, arXiv 2509.22650).

    mass_k     mean over cells, heads and steps of A[cell, k], in each layer: the share of the
               attention to text that token k gets
    sink       mass_k > factor / (number of tokens), in more than a share ``most`` of the layers
    suppress   leave special tokens, stop words and sinks out; what is left of every cell is divided
               by its sum

RefAM appends stop words to the prompt so that they draw surplus attention away from the words that
matter, and averages the maps without them: append ", a, with, ." to the prompt and use
``suppressed``. Its thresholds are not published; those here are ours. All functions take recordings
of all tokens (``words=None``).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from attncontrol.analysis.aggregate import on_axis, renormalised, without_special
from attncontrol.axes import KeptTokens, Means
from attncontrol.checks.arguments import Positive, Share, checked
from attncontrol.maps.recorded import AttentionMaps

LayerMass = Float[Tensor, "layer batch token"]

_STOP_WORDS = """
a an the this that these those some any of in on at by for from to with without and or but nor as is
are was were be been being it its his her their there here into onto over under near next beside
behind between while which who
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Shares:
    """Of the attention to text in one layer, mean over images: shares that sum to 1."""

    site: str
    special: float
    stop_words: float
    words: float


def mass(maps: AttentionMaps) -> LayerMass:
    """[layer batch token] of the first branch, of which the tokens sum to 1. Raises WordError for a
    recording of words."""
    on_axis(maps, ((),) * len(maps.prompts))
    masses = []
    for of_layer in maps.layers.values():
        of_token = of_layer[:, 0].flatten(1, -2).nanmean(1)
        masses.append(
            of_token / of_token.sum(1, keepdim=True).clamp(min=torch.finfo(of_token.dtype).tiny)
        )
    return torch.stack(masses)


def stop_words(maps: AttentionMaps) -> KeptTokens:
    """Which columns are pieces of stop words or punctuation."""
    known = torch.zeros(len(maps.prompts), max(map(len, maps.spans)), dtype=torch.bool)
    for b, (prompt, tokens) in enumerate(zip(maps.prompts, maps.tokens, strict=True)):
        words = [
            (m.start(), m.end(), m[0].lower() in STOP_WORDS)
            for m in re.finditer(r"\w[\w'-]*", prompt)
        ]
        for k, token in enumerate(tokens):
            named = [
                stops for start, end, stops in words if token.start < end and start < token.end
            ]
            known[b, k] = not token.special and all(named)  # no word at all: punctuation
    return known


@checked
def sinks(maps: AttentionMaps, *, factor: Positive = 3.0, most: Share = 0.5) -> KeptTokens:
    """Which columns are global sinks."""
    counts = torch.tensor([len(tokens) for tokens in maps.tokens])
    return (mass(maps) > (factor / counts)[:, None]).double().mean(0) > most


def shares(maps: AttentionMaps) -> list[Shares]:
    """One row per layer, in order."""
    of_layers, words, stops = mass(maps), without_special(maps), stop_words(maps)
    rows = []
    for site, of_layer in zip(maps.layers, of_layers, strict=True):
        special, stop, rest = (
            (of_layer * kept).sum(1).mean() for kept in (~words, stops, words & ~stops)
        )
        rows.append(Shares(site, float(special), float(stop), float(rest)))
    return rows


@checked
def suppressed(
    maps: AttentionMaps,
    *,
    factor: Positive = 3.0,
    most: Share = 0.5,
    layers: Callable[[AttentionMaps], Means] = AttentionMaps.mean,
) -> Means:
    """Maps of the words that name something; they sum to 1 in every cell. Words that are sinks are
    left out too."""
    kept = without_special(maps) & ~stop_words(maps) & ~sinks(maps, factor=factor, most=most)
    return renormalised(layers(maps), kept)
