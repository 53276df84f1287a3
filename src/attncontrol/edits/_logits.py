"""Numbers added to logits that depend on the logits, in memory for some queries at a time."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Result

_MOST = 2**24  # logits at once
_MASKED = -1000.0  # models mask with -10000, or minus infinity


def pulled(call: AttentionCall, keys: Tensor, up: Tensor, strength: Tensor) -> Tensor:
    """The bias [batch heads query key] that moves the logits with some ``keys`` toward the largest
    of them where ``up`` [query some], toward the smallest elsewhere, by ``strength`` [query 1];
    keys that are masked have no part in it."""
    logits, seen = _logits(call, keys), visible(call)
    seen = seen.expand(*seen.shape[:-1], call.key.shape[2])[..., keys]
    most = logits.masked_fill(~seen, -math.inf).amax(-1, keepdim=True)
    least = logits.masked_fill(~seen, math.inf).amin(-1, keepdim=True)
    moved = strength.to(logits) * (torch.where(up, most, least) - logits)
    bias = logits.new_zeros(*logits.shape[:3], call.key.shape[2])
    bias[..., keys] = moved.masked_fill(~seen, 0.0)
    return bias


def _logits(call: AttentionCall, keys: Tensor) -> Tensor:
    """With some keys, without the mask, in float32 or wider."""
    shared = call.query.shape[1] // call.key.shape[1]
    query, key = (t if t.dtype == torch.float64 else t.float() for t in (call.query, call.key))
    key = key[:, :, keys].repeat_interleave(shared, 1)
    return (query * call.factor) @ key.transpose(-1, -2)


def visible(call: AttentionCall) -> Tensor:
    """Which keys are not masked [#batch #heads #query #key]."""
    if call.mask is None:
        return torch.ones((1,) * 4, dtype=torch.bool, device=call.key.device)
    mask = call.mask.reshape(*[1] * (4 - call.mask.ndim), *call.mask.shape)
    return mask if mask.dtype == torch.bool else mask > _MASKED


def with_bias(
    call: AttentionCall,
    queries: Mapping[int, Tensor],
    bias: Callable[[AttentionCall, int, Tensor], Tensor],
) -> Result:
    """``bias(part, row, chunk)`` [1 heads chunk key] is added to the logits of ``queries`` by row,
    ``chunk`` of which are those of ``part``, as numbers in their order.

    The changed call in cross-attention, whose keys are few, and where further edits need one; else
    its output.
    """
    whole = call.site.kind == "cross" or call.below is not None
    _, heads, length, width = *call.query.shape[:3], call.key.shape[2]
    size = max(1, _MOST // (heads * width))
    changed = call.query.new_zeros(len(call.query), heads, length, width) if whole else call.run()
    for row, chosen in queries.items():
        for chunk in torch.arange(len(chosen), device=chosen.device).split(size):
            part = call.rows(slice(row, row + 1)).of_queries(chosen[chunk])
            added = bias(part, row, chunk)
            changed[row, :, chosen[chunk]] = (
                added[0].to(changed) if whole else part.biased(added).kernel()[0]
            )
    return call.biased(changed) if whole else changed
