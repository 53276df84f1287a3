"""Sequences in which the picture is no row of positions, seen with its cells in a row.

Queries, and the keys of self-attention, come in the ``order`` of the layout. The kernel is given
the order of the model, so that outputs which nobody changed are its own to the last bit.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from attncontrol.attention.call import AttentionCall, Backend


def in_order(call: AttentionCall, order: Tensor) -> AttentionCall:
    """The call with its positions in another order; those of keys too in self-attention."""
    order = order.to(call.query.device)
    turned = _turned(call, order)
    return replace(turned, backend=_OwnOrder(order, order.argsort(), call.backend))


def _turned(call: AttentionCall, order: Tensor) -> AttentionCall:
    query, key, value, mask = call.query[:, :, order], call.key, call.value, call.mask
    if call.site.kind == "self":
        key, value = key[:, :, order], value[:, :, order]
        mask = mask[..., order] if mask is not None and mask.shape[-1] > 1 else mask
    if mask is not None and mask.shape[-2] > 1:
        mask = mask[..., order, :]
    return call.replace(query=query, key=key, value=value, mask=mask)


@dataclass(frozen=True, eq=False)
class _OwnOrder:
    """The kernel for calls with the positions of the model, in whatever rows and heads."""

    order: Tensor
    back: Tensor
    backend: Backend | None

    def __call__(self, call: AttentionCall) -> Tensor | None:
        keys = call.key.shape[2] if call.site.kind == "self" else len(self.order)
        if not call.query.shape[2] == keys == len(self.order):  # a part of the call, or more keys
            return None if self.backend is None else self.backend(call)
        own = replace(_turned(call, self.back), backend=self.backend)
        return own.kernel()[:, :, self.order]
