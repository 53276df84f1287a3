"""What each head does: how spread its maps are, what it wastes on special tokens, which heads are
alike, which ones matter.

Of a map p >= 0 over the cells of a picture, divided by its sum (a map of zeros gives 0):

    entropy      - sum p log p / log(cells): 0 for one cell, 1 for a uniform map
    spread       sqrt(sum p |x - c|^2) / diagonal of the picture, c = sum p x: 0 for one cell, 0.289
                 for a uniform square map
    special      share of the attention to text that goes to start, end and padding ("sink mass")

Of attention among cells A, rows divided by their sums:

    diagonal     mean_i A_ii: 1 for a head that looks at the own cell alone
    spectrum     eigenvalues of I - D^(-1/2) W D^(-1/2), W = (A + A^T) / 2, D its row sums,
                 ascending, 0 .. 2. The second one, the connectivity, is 0 where the cells fall into
                 parts that do not look at each other (Chung, Spectral Graph Theory)

``clusters``: average linkage of cosine distances between the maps of heads. ``importance``: mean
|change of the prediction| on one noised picture when the output of one head is zero (Michel et al.
2019, arXiv 1905.10650, ablate the trained model likewise).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.cluster import hierarchy
from torch import Tensor

from attncontrol.analysis.aggregate import without_special
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Head
from attncontrol.axes import HeadMaps
from attncontrol.checks.arguments import Count, Index, checked
from attncontrol.errors import RecordError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.running.calls import prediction_of
from attncontrol.running.session import attach
from attncontrol.verbs.photo import Photo
from attncontrol.verbs.picture import noised_call
from attncontrol.verbs.places import require_head

Spectra = Float[Tensor, "many cell"]
Squares = Float[Tensor, "many cell cell"]
PerHead = Float[Tensor, " many"]


def entropy(maps: HeadMaps) -> PerHead:
    p = _distributions(maps)
    return torch.special.entr(p).sum((1, 2)) / np.log(max(p[0].numel(), 2))


def spread(maps: HeadMaps) -> PerHead:
    p = _distributions(maps)
    height, width = p.shape[1:]
    y, x = torch.meshgrid(torch.arange(height).to(p), torch.arange(width).to(p), indexing="ij")
    variance = [(p * at**2).sum((1, 2)) - (p * at).sum((1, 2)) ** 2 for at in (y, x)]
    return (variance[0] + variance[1]).clamp(min=0).sqrt() / float(np.hypot(height, width))


def diagonal(among: Squares) -> PerHead:
    return _rows(among).diagonal(dim1=1, dim2=2).mean(1)


def spectrum(among: Squares) -> Spectra:
    rows = _rows(among)
    both = (rows + rows.transpose(1, 2)) / 2
    root = both.sum(2).clamp(min=torch.finfo(both.dtype).tiny).rsqrt()
    eye = torch.eye(both.shape[1], dtype=both.dtype, device=both.device)
    return torch.linalg.eigvalsh(eye - root[:, :, None] * both * root[:, None])


def _distributions(maps: Tensor) -> Tensor:
    return maps / maps.sum((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def _rows(among: Tensor) -> Tensor:
    return among / among.sum(2, keepdim=True).clamp(min=torch.finfo(among.dtype).tiny)


@dataclass(frozen=True)
class OfText:
    """Means over images, steps and words of one head's maps; ``special`` is None for recordings of
    words."""

    site: str
    head: int
    entropy: float
    spread: float
    special: float | None


@dataclass(frozen=True)
class OfCells:
    """Means over images and steps of one head's attention among cells."""

    site: str
    head: int
    diagonal: float
    connectivity: float


def of_text(maps: AttentionMaps) -> list[OfText]:
    """Of an image->text recording with ``keep=("head",)``: words alone, never special tokens.
    Raises RecordError."""
    words = without_special(maps)
    everything = tuple(map(len, maps.spans)) == tuple(map(len, maps.tokens))
    rows = []
    for name, of_layer in _with_heads(maps):
        for head, of_head in enumerate(of_layer):  # batch step height width token
            chosen = of_head.movedim(-1, 1)[words].flatten(0, 1)
            total = of_head.sum().clamp(min=torch.finfo(of_head.dtype).tiny)
            special = 1 - float(of_head.movedim(-1, 1)[words].sum() / total) if everything else None
            rows.append(
                OfText(
                    name, head, float(entropy(chosen).mean()), float(spread(chosen).mean()), special
                )
            )
    return rows


def of_cells(maps: AttentionMaps) -> list[OfCells]:
    """Of an image->image recording with ``keep=("head",)``. Raises RecordError."""
    rows = []
    for name, of_layer in _with_heads(maps):
        for head, of_head in enumerate(of_layer):
            among = of_head.flatten(2, 3).flatten(0, 1)
            rows.append(
                OfCells(
                    name, head, float(diagonal(among).mean()), float(spectrum(among)[:, 1].mean())
                )
            )
    return rows


def _with_heads(maps: AttentionMaps) -> list[tuple[str, Tensor]]:
    """[head batch step height width token] of the first branch of every layer, without the steps in
    which it did not run."""
    for name, of_layer in maps.layers.items():
        if of_layer.shape[3] != maps.sites[name].heads:
            raise RecordError(
                "the heads of this recording are averaged; record with keep=('head',)"
            )
    layers = []
    for name, of_layer in maps.layers.items():
        ran = ~of_layer[:, 0].isnan().flatten(2).all(2).all(0)
        layers.append((name, of_layer[:, 0][:, ran].movedim(2, 0)))
    return layers


@checked
def patterns(
    maps: AttentionMaps, image: Index = 0, *, side: Count = 16
) -> tuple[list[Head], np.ndarray]:
    """The heads of a recording and [head feature]: the maps of an image's words, mean over steps,
    all resized to side x side."""
    words = without_special(maps)[image]
    heads, rows = [], []
    for name, of_layer in _with_heads(maps):
        mean = of_layer[:, image].mean(1)[..., words].permute(0, 3, 1, 2)
        resized = F.interpolate(mean, (side, side), mode="bilinear", align_corners=False)
        heads += [(name, head) for head in range(len(mean))]
        rows.append(resized.flatten(1).double().numpy())
    return heads, np.concatenate(rows)


@checked
def clusters(rows: np.ndarray, count: Count) -> np.ndarray:
    """Labels 1 .. ``count`` (or fewer) of the rows of [head feature]."""
    return hierarchy.fcluster(
        hierarchy.linkage(rows, method="average", metric="cosine"), count, criterion="maxclust"
    )


def mean_change(before: Tensor, after: Tensor) -> float:
    return float((after - before).abs().mean())


@checked
@torch.no_grad()
def importance(
    pipe: Any,
    picture: Photo,
    prompt: str,
    heads: Sequence[Head],
    *,
    timestep: float,
    seed: int = 0,
    score: Callable[[Tensor, Tensor], float] = mean_change,
    **call: Any,
) -> Mapping[Head, float]:
    """``score``(prediction, prediction without the head) of every head, on one picture; a forward
    of the denoiser for each.

    Raises SiteError if there is no such head.
    """
    run = attach(pipe)
    for place in heads:
        require_head(place, run.sites)
    part = noised_call(pipe, [picture], [prompt], timestep=timestep, seed=seed, **call)
    before = prediction_of(run.forward(part, "probe"))
    scores = {}
    for name, head in heads:
        without = functools.partial(_without, head)
        after = run.forward(part, "probe", sites={name: run.sites[name]}, edit=without)
        scores[name, head] = score(before, prediction_of(after))
    return scores


def _without(head: int, call: AttentionCall, _: Moment) -> Tensor:
    output = call.run().clone()
    output[:, head] = 0
    return output
