"""Attention that is the source's: of the picture, and of the text word by word."""

from collections.abc import Callable

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Result, Seen
from attncontrol.attention.heads import with_heads
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.source import LOOK, Source, Taken
from attncontrol.attention.taken import note
from attncontrol.prompts.alignment import Alignment, align


def of_layout(
    call: AttentionCall, now: Moment, among: float, joint: float, cells: int
) -> Taken | None:
    """Conditional rows look at the picture as the source does: in self-attention of at most
    ``cells`` queries in the first ``among`` of the steps, in joint attention in the first
    ``joint``."""
    is_self = call.site.kind == "self"
    large = is_self and call.query.shape[2] > cells
    late = now.step.index >= steps_in(among if is_self else joint, now.step.total)
    return None if large or late else LOOK._replace(branches=("cond",))


def with_source_text(
    call: AttentionCall,
    now: Moment,
    source: Source,
    taken: Taken,
    shares: Callable[[Alignment, Moment, int], Tensor],
) -> Result:
    """Cross-attention in which conditional rows give a share of their attention to every token as
    the source does: a_j sum_i A_source,i M_ij + (1 - a_j) A_j, with a [token] from ``shares``.

    The changed call where all is the source's, token by token; else the output, beside the call in
    which that is so in such rows.
    """
    keys, text = call.key.shape[2], range(call.key.shape[2])[now.layout.text]
    here = slice(text.start, text.stop)
    moved = call.value.new_zeros(len(call.value), keys, keys)
    own = call.value.new_ones(len(call.value), keys)
    exact = torch.ones(*call.query.shape[:2], 1, 1, dtype=torch.bool, device=call.query.device)
    for row in range(len(call.query))[now.rows("cond")]:
        image = now.image_of_row(row)
        if now.source_of(source, image) == image:
            continue
        alignment = aligned(now, source, image)
        share = shares(alignment, now, image).to(moved)
        note(call, now, image, share)
        moved[row, here, here], own[row, here] = alignment.matrix.to(moved) * share, 1 - share
        exact[row] = alignment.is_identity and bool((share == 1).all())
    if not moved.any():
        return call
    there = now.source(call, source, *taken)
    if exact.all():
        return there
    theirs = there.replace(value=moved[:, None] @ call.value)
    rest = call.replace(value=own[:, None, :, None] * call.value)
    seen = with_heads(call, there, range(call.query.shape[1]), exact)
    return Seen(theirs.run() + rest.run(), seen or call)


def aligned(now: Moment, source: Source, image: int) -> Alignment:
    """The words of an image and of its source."""
    text, other = now.told(source, image)
    prompts = text.prompts[other], now.text.prompts[image]
    return align(text.tokens(other), now.text.tokens(image), str(prompts[0]), str(prompts[1]))
