"""Attention that training can look at, and the loss that draws it to the objects."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def grounding_loss(maps: list[Tensor], owners: Tensor, coverage: Tensor, weight: Tensor) -> Tensor:
    """Mean over tokens with an object of (1 - attention inside the object / attention everywhere)
    squared.

    TokenCompose (arXiv 2312.03626), token loss, on the mean map of each resolution. ``weight``
    (batch,) scales samples.
    """
    total = torch.zeros((), device=coverage.device)
    known = (owners >= 0).float() * weight[:, None]
    index = owners.clamp(min=0).long()
    for tokens in sorted({m.shape[1] for m in maps}):
        mean = torch.stack([m for m in maps if m.shape[1] == tokens]).mean(0)  # batch, pixel, token
        side = math.isqrt(tokens)
        inside = (
            (F.adaptive_avg_pool2d(coverage, side) > 0.2).float().flatten(2)
        )  # batch, object, pixel
        inside = inside.gather(1, index[..., None].expand(-1, -1, tokens))  # batch, token, pixel
        share = (mean.transpose(1, 2) * inside).sum(-1) / mean.sum(1).clamp(min=1e-6)
        total = total + ((1 - share).square() * known).sum() / known.sum().clamp(min=1e-3)
    return total


def eager_attention(kept: list[Tensor]) -> Callable[..., Tensor]:
    """Explicit softmax attention, whose backward in bfloat16 is faster than SDPA's on a CPU;
    appends head-mean probabilities."""

    def explicit(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any,
        is_causal: bool = False, scale: float | None = None, **__: Any,
    ) -> Tensor:  # fmt: skip
        logits = (
            query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        ).float()
        if is_causal:
            every = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(every.triu(1), -torch.inf)
        if attn_mask is not None:
            logits = (
                logits.masked_fill(~attn_mask, -torch.inf)
                if attn_mask.dtype == torch.bool
                else logits + attn_mask
            )
        probabilities = logits.softmax(-1)
        kept.append(probabilities.mean(1))
        return probabilities.to(value.dtype) @ value

    return explicit


@contextmanager
def attention(function: Callable[..., Tensor]) -> Iterator[None]:
    """All scaled dot-product attention by ``function``."""
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = function
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before
