"""Rows of a call that stay as they are."""

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment, Source


def but_source(call: AttentionCall, changed: AttentionCall, now: Moment, source: Source) -> Tensor:
    """The output of ``changed``, and that of ``call`` in the rows of the source, to the bit."""
    rows = range(len(call.query))
    images = [now.image_of_row(row) for row in rows]
    own = [row for row in rows if now.source_of(source, images[row]) == images[row]]
    others = [row for row in rows if row not in own]
    if call.below is not None:  # edits inside this one know whole calls only
        output = changed.run()
        output[own] = call.run()[own]
        return output
    output = call.query.new_empty(*call.query.shape[:3], call.value.shape[-1])
    output[own] = call.rows(own).kernel()
    if others:
        output[others] = changed.rows(others).kernel()
    return output
