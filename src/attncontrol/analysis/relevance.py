"""Which tokens a prediction rests on: attention weighted by its gradient (Chefer, Gur & Wolf 2021,
arXiv 2103.15679).

For a scalar y, such as the mean of the prediction in a region, and the attention A [batch heads
query key] of each layer:

    A_bar = mean over heads of max(0, dy/dA * A)                                  (5)

One sequence, as in joint attention or self-attention alone, R = I before the first layer:

    R   <- R + A_bar R                                                                 (6)

Two sequences, s (picture) that looks at q (text), with R_ss = R_qq = I and R_sq = R_qs = 0 before
the first layer:

    self-attention of s      R_ss <- R_ss + A_bar R_ss                                 (6)
                             R_sq <- R_sq + A_bar R_sq                                 (7)
    s attends to q           R_sq <- R_sq + N(R_ss)^T A_bar N(R_qq)                    (10)
                             R_ss <- R_ss + A_bar R_qs                                 (11)

N divides the rows of R - I by their sums and adds I (8, 9). Layers come in the order of the forward
pass. The maps of layers must be on one grid; a row of zeros in R - I stays.

``relevance_of_picture`` does all this for a pipeline.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Site, Where
from attncontrol.axes import Sequences, WordMaps
from attncontrol.checks.arguments import SomeWords, checked
from attncontrol.errors import SettingError, SiteError
from attncontrol.running.backward import differentiable
from attncontrol.running.calls import prediction_of
from attncontrol.running.session import attach
from attncontrol.verbs.photo import Photo
from attncontrol.verbs.picture import noised_call

HeadRows = Float[Tensor, "batch heads query key"]
Relevances = Float[Tensor, "batch query key"]

Layer = tuple[Site, Tensor, Tensor]
"""Where, attention and its gradient, each [batch heads query key]."""


def weighted(attention: HeadRows, gradient: HeadRows) -> Relevances:
    """A_bar [batch query key]."""
    return (attention * gradient).clamp(min=0).mean(1)


def one_sequence(layers: Iterable[tuple[Tensor, Tensor]]) -> Sequences:
    """R of (attention, gradient) pairs, each [batch heads sequence sequence]."""
    result: Tensor | None = None
    for attention, gradient in layers:
        step = weighted(attention, gradient)
        before = _eye(len(step), step.shape[1], step) if result is None else result
        result = before + step @ before
    if result is None:
        raise SettingError("relevance needs at least one layer")
    return result


@dataclass(frozen=True)
class Relevance:
    """R [batch from to] within and between picture and text; row i says what token i of the first
    rests on."""

    picture: Tensor
    text: Tensor
    picture_text: Tensor
    text_picture: Tensor

    @classmethod
    def start(cls, batch: int, cells: int, tokens: int, like: Tensor) -> "Relevance":
        none = like.new_zeros(batch, cells, tokens)
        return cls(_eye(batch, cells, like), _eye(batch, tokens, like), none, none.transpose(1, 2))


Stream = Literal["picture", "text"]
Kind = Literal["self", "cross"]


def attended(
    before: Relevance, stream: Stream, kind: Kind, attention: HeadRows, gradient: HeadRows
) -> Relevance:
    """After one more layer, in which ``stream`` attends to itself or ("cross") to the other one."""
    step = weighted(attention, gradient)
    own, other, across, back = (
        (before.picture, before.text, before.picture_text, before.text_picture)
        if stream == "picture"
        else (before.text, before.picture, before.text_picture, before.picture_text)
    )
    if kind == "self":
        own, across = own + step @ own, across + step @ across
    else:
        own, across = (
            own + step @ back,
            across + _normalised(own).transpose(1, 2) @ step @ _normalised(other),
        )
    if stream == "picture":
        return replace(before, picture=own, picture_text=across)
    return replace(before, text=own, text_picture=across)


def two_sequences(
    layers: Iterable[tuple[Stream, Kind, Tensor, Tensor]], start: Relevance
) -> Relevance:
    """After all layers (stream, kind, attention, gradient). The result for word maps is
    ``picture_text`` [batch cell token]."""
    for stream, kind, attention, gradient in layers:
        start = attended(start, stream, kind, attention, gradient)
    return start


@checked
def relevance_of_picture(
    pipe: Any,
    picture: Photo,
    prompt: str,
    words: SomeWords,
    *,
    timestep: float,
    seed: int = 0,
    score: Callable[[Tensor], Tensor] = lambda prediction: prediction.square().mean(),
    where: Where | None = None,
    **call: Any,
) -> WordMaps:
    """Where in a picture the prediction rests on words [word height width]: R from cells to the
    tokens of each word, their sum.

    ``score`` makes y of the denoiser's prediction. ``where`` are by default all sites of joint
    attention or, without it, those of cross- and self-attention on the finest grid of at most 1,024
    cells. Every layer's attention and its gradient are held, heads x query x key numbers each.
    ``call`` goes to the pipeline; see ``picture.noised_call``. Raises WordError; SiteError if the
    sites are of several grids or look at no text.
    """
    run = attach(pipe)
    part = noised_call(pipe, [picture], [prompt], timestep=timestep, seed=seed, **call)
    positions = [list(part.text.span(word, 0).positions) for word in words]
    layouts = {
        site: run.family.layout(run.denoiser, part.arguments, site) for site in run.sites.values()
    }
    sites = _chosen(layouts, where)
    kept: list[tuple[Site, Tensor]] = []

    def explicit(attention: AttentionCall, _: Moment) -> Tensor:
        kept.append((attention.site, attention.probabilities().requires_grad_()))
        return kept[-1][1].to(attention.value) @ attention.value

    named = {site.name: site for site in sites}
    with torch.enable_grad(), differentiable(run.denoiser):
        value = score(prediction_of(run.forward(part, "probe", sites=named, listen=explicit)))
        gradients = torch.autograd.grad(value, [attention for _, attention in kept])
    layers = [
        (site, attention.detach(), of)
        for (site, attention), of in zip(kept, gradients, strict=True)
    ]
    return _of_words(layers, layouts[sites[0]], positions)


def _chosen(layouts: Mapping[Site, Layout], where: Where | None) -> tuple[Site, ...]:
    cells = {site: math.prod(layout.grid) for site, layout in layouts.items()}
    finest = max((count for count in cells.values() if count <= 1024), default=0)
    joint = [site for site in layouts if site.kind == "joint"]
    sites = (
        where.select(layouts)
        if where
        else tuple(joint or [site for site in layouts if cells[site] == finest])
    )
    grids, kinds = {layouts[site].grid for site in sites}, {site.kind for site in sites}
    if len(grids) != 1 or kinds not in ({"joint"}, {"cross"}, {"cross", "self"}):
        raise SiteError(
            "relevance needs sites of one grid, of joint attention or of cross- and "
            f"self-attention, not of the grids {sorted(grids)} and kinds {sorted(kinds)}; "
            "choose them with where=Where(stride=..., kind=...)"
        )
    return sites


def _of_words(
    layers: Sequence[Layer], layout: Layout, positions: Sequence[Sequence[int]]
) -> WordMaps:
    """Of layers in the order of the forward pass."""
    image = layout.image_slice
    if layers[0][0].kind == "joint":
        relevance = one_sequence((attention, gradient) for _, attention, gradient in layers)[
            0, image, layout.text
        ]
    else:
        cells, text = next(
            attention.shape[2:] for site, attention, _ in layers if site.kind == "cross"
        )
        start = Relevance.start(1, cells, text, layers[0][1])
        for site, attention, gradient in layers:
            start = attended(
                start, "picture", "self" if site.kind == "self" else "cross", attention, gradient
            )
        relevance = start.picture_text[0, image]
    return torch.stack([relevance[:, places].sum(1) for places in positions]).unflatten(
        1, layout.grid
    )


def _eye(batch: int, size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device).expand(batch, -1, -1)


def _normalised(relevance: Tensor) -> Tensor:
    eye = _eye(len(relevance), relevance.shape[1], relevance)
    rest = relevance - eye
    return rest / rest.sum(2, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny) + eye
