"""An edit of some heads of a call."""

from typing import Any

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Seen
from attncontrol.attention.heads import with_heads
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import SourcePass
from attncontrol.errors import CouplingError


def of_rows(heads: Tensor, now: Moment) -> Tensor:
    """[row head 1 1] of [image head]. Raises CouplingError for another number of images."""
    if len(heads) > 1:
        count = len(now.text.prompts)
        if len(heads) != count:
            raise CouplingError(
                f"heads are given per image for {len(heads)}, not for {count} images"
            )
        rows = range(len(now.branches) * len(now.images))
        heads = heads[[now.image_of_row(row) for row in rows]]
    return heads[..., None, None]


def on_heads(edit: Edit, call: AttentionCall, now: Moment, chosen: Tensor) -> AttentionCall | Seen:
    """The call in which the edit has changed the chosen heads, or beside it the output that it
    gives, whose other heads are not to be used. Only the chosen heads are computed where that can
    be."""
    heads: Any = chosen.flatten(1).any(0).nonzero()[:, 0].tolist()
    whole = call.below is not None or isinstance(edit.source, SourcePass)
    if chosen.all() or whole:  # edits inside this one, and sources, know whole calls only
        heads = list(range(call.query.shape[1]))
    result = edit(call if len(heads) == call.query.shape[1] else call.of_heads(heads), now)
    changed = result.call if isinstance(result, Seen) else result
    merged = None
    if isinstance(changed, AttentionCall):
        merged = changed if chosen.all() else with_heads(call, changed, heads, chosen)
    if isinstance(result, AttentionCall):
        if merged is not None:
            return merged
        result = result.run()
    given = result.output if isinstance(result, Seen) else result
    output = given.new_zeros(len(given), call.query.shape[1], *given.shape[2:])
    output[:, heads] = given
    return Seen(output, call if merged is None else merged)
