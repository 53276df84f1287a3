"""More keys for a call of attention."""

import torch
import torch.nn.functional as F

from attncontrol.attention.call import AttentionCall, Key


def extended(call: AttentionCall, key: Key, value: Key, bias: float = 0.0) -> AttentionCall:
    """The call whose queries also see ``key`` with ``value``, after its own; ``bias`` is added to
    the logits of these."""
    keys, values = torch.cat([call.key, key], 2), torch.cat([call.value, value], 2)
    mask = call.mask
    if bias:
        mask = call.biased(call.query.new_zeros(1, 1, 1, call.key.shape[2])).mask  # of numbers
    if mask is not None:
        soft = mask.dtype != torch.bool
        mask = F.pad(mask, (0, key.shape[2]), value=bias if soft else True)
    return call.replace(key=keys, value=values, mask=mask)
