"""Joint attention with texts of regions, from pieces of the keys: the picture is looked at once for
the prompt and for the regions.

    O = (e^z1 O1 + e^z2 O2) / (e^z1 + e^z2)    of disjoint keys, z the normaliser of each

is the softmax over both, exactly.
"""

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.edits._view import View

Piece = tuple[Tensor, Tensor]
"""Output [row head query dim] of a softmax over some keys, and its normaliser [row head query]."""


def from_pieces(call: AttentionCall, view: View, base: float, size: int) -> Tensor | None:
    """The output for the rows of a view, by ``size`` queries at once; None where the kernel gives
    no normaliser, or where some cells do not see others."""
    rows, tokens = call.rows(view.group.at), view.own.nonzero()[:, 0]
    mask, picture = rows.mask, rows.key.new_zeros(rows.key.shape[2], dtype=torch.bool)
    picture[view.layout.image_slice] = True
    if view.separate or mask is None or mask.dtype != torch.bool or mask.numel() != len(picture):
        return None
    text = (mask.flatten() & ~picture).nonzero()[:, 0]
    if not len(text) or not mask.flatten()[picture].all():
        return None
    own, some_output = slice(int(tokens[0]), int(tokens[-1]) + 1), []
    for start in range(0, rows.query.shape[2], size):
        some = slice(start, start + size)
        part = rows.of_queries(some)
        of_picture = _of_keys(part, view.layout.image_slice).kernel_with_normaliser()
        of_text = _of_keys(part, text).kernel_with_normaliser()
        if of_picture is None or of_text is None:
            return None
        output = _together(of_picture, of_text)
        if len(cells := view.inside[some].nonzero()[:, 0]):
            seen = view.seen(some)[cells][:, tokens]
            of_own = _explicit(_of_keys(part.of_queries(cells), tokens), seen)
            inside = _together((of_picture[0][:, :, cells], of_picture[1][:, :, cells]), of_own)
            output[:, :, cells] = inside.lerp(output[:, :, cells], base)
        some_output.append(output)
    whole = torch.cat(some_output, 2)
    whole[:, :, own] = view.masked(call, own).kernel()
    return whole


def _of_keys(call: AttentionCall, keys: slice | Tensor) -> AttentionCall:
    return call.replace(key=call.key[:, :, keys], value=call.value[:, :, keys], mask=None)


def _explicit(call: AttentionCall, seen: Tensor) -> Piece:
    """Of few keys."""
    logits = (call.query * call.factor) @ call.key.transpose(-1, -2)
    logits = logits.masked_fill(~seen, -torch.inf)
    return logits.softmax(-1) @ call.value, logits.logsumexp(-1)


def _together(one: Piece, other: Piece) -> Tensor:
    share = (one[1] - other[1]).sigmoid()[..., None]
    return other[0].lerp(one[0], share.to(one[0]))
