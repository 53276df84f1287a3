"""More keys for a call of attention."""

import math

import torch
import torch.nn.functional as F

from attncontrol.attention.call import AttentionCall, Key


def extended(call: AttentionCall, key: Key, value: Key, bias: float = 0.0) -> AttentionCall:
    """The call whose queries also see ``key`` with ``value``, after its own; ``bias`` is added to
    the logits of these."""
    count = key.shape[2]
    keys, values = torch.cat([call.key, key], 2), torch.cat([call.value, value], 2)
    mask = call.mask
    if mask is None and bias:
        mask = call.query.new_zeros(1, 1, 1, call.key.shape[2])
    elif mask is not None and mask.dtype == torch.bool and bias:
        mask = call.query.new_zeros(mask.shape).masked_fill(~mask, -math.inf)
    if mask is not None:
        soft = mask.dtype != torch.bool
        mask = F.pad(mask, (0, count), value=bias if soft else True)
    return call.replace(key=keys, value=values, mask=mask)
