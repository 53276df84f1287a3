"""Which tokens a prediction rests on: attention weighted by its gradient (Chefer, Gur & Wolf 2021, arXiv 2103.15679).

For a scalar y, such as the mean of the prediction in a region, and the attention A [batch heads query key] of each layer:

    A_bar = mean over heads of max(0, dy/dA * A)                                                               (5)

One sequence, as in joint attention or self-attention alone, R = I before the first layer:

    R   <- R + A_bar R                                                                                         (6)

Two sequences, s (picture) that looks at q (text), with R_ss = R_qq = I and R_sq = R_qs = 0 before the first layer:

    self-attention of s      R_ss <- R_ss + A_bar R_ss,   R_sq <- R_sq + A_bar R_sq                            (6, 7)
    s attends to q           R_sq <- R_sq + N(R_ss)^T A_bar N(R_qq),   R_ss <- R_ss + A_bar R_qs               (10, 11)

N divides the rows of R - I by their sums and adds I (8, 9). Layers come in the order of the forward pass. The maps of layers must
be on one grid; a row of zeros in R - I stays.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from attncontrol.axes import HeadRows, Relevances, Sequences


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
        raise ValueError("relevance needs at least one layer")
    return result


@dataclass(frozen=True)
class Relevance:
    """R [batch from to] within and between picture and text; row i says what token i of the first rests on."""

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


def attended(before: Relevance, stream: Stream, kind: Kind, attention: HeadRows, gradient: HeadRows) -> Relevance:
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
        own, across = own + step @ back, across + _normalised(own).transpose(1, 2) @ step @ _normalised(other)
    if stream == "picture":
        return replace(before, picture=own, picture_text=across)
    return replace(before, text=own, text_picture=across)


def two_sequences(layers: Iterable[tuple[Stream, Kind, Tensor, Tensor]], start: Relevance) -> Relevance:
    """After all layers (stream, kind, attention, gradient). The result for word maps is ``picture_text`` [batch cell token]."""
    for stream, kind, attention, gradient in layers:
        start = attended(start, stream, kind, attention, gradient)
    return start


def _eye(batch: int, size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device).expand(batch, -1, -1)


def _normalised(relevance: Tensor) -> Tensor:
    eye = _eye(len(relevance), relevance.shape[1], relevance)
    rest = relevance - eye
    return rest / rest.sum(2, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny) + eye
