"""A call of which some heads are those of another one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall


def with_heads(
    call: AttentionCall, changed: AttentionCall, heads: Sequence[int], chosen: Tensor
) -> AttentionCall | None:
    """``call`` with the ``chosen`` heads [row head 1 1] of ``changed``, which has ``heads`` of it.

    None if no single call attends so: the keys of ``changed`` are others in number.
    """
    if changed.key.shape[2] != call.key.shape[2]:
        return None
    at = list(heads)
    tensors = {name: getattr(call, name).clone() for name in ("query", "key", "value")}
    others = {name: getattr(changed, name) for name in tensors}
    if changed.factor != call.factor:
        others["query"] = others["query"] * (changed.factor / call.factor)
    for name, tensor in tensors.items():
        tensor[:, at] = torch.where(chosen[:, at], others[name], tensor[:, at])
    return call.replace(mask=_mask(call, changed, at, chosen), **tensors)


def _mask(
    call: AttentionCall, changed: AttentionCall, at: list[int], chosen: Tensor
) -> Tensor | None:
    masks = [call.mask, changed.mask]
    if masks == [None, None]:
        return None
    biased = any(mask is not None and mask.dtype != torch.bool for mask in masks)
    own, other = (_full(mask, call, biased) for mask in masks)
    rows, queries = (max(own.shape[i], other.shape[i]) for i in (0, 2))
    spread = own.expand(rows, call.query.shape[1], queries, -1).clone()
    spread[:, at] = other.expand(rows, len(at), queries, -1)
    return torch.where(chosen, spread, own)


def _full(mask: Tensor | None, call: AttentionCall, biased: bool) -> Tensor:
    """A mask with four axes, and as numbers if ``biased``."""
    if mask is None:
        mask = torch.ones(call.key.shape[2], dtype=torch.bool, device=call.key.device)
    if biased and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=call.query.dtype).masked_fill(~mask, -torch.inf)
    return mask.reshape(*[1] * (4 - mask.ndim), *mask.shape)
