"""Rows and queries of a call that stay as they are."""

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source


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


def picture_queries(call: AttentionCall, now: Moment) -> Tensor:
    """Which are cells of the picture [row 1 query 1]."""
    rows, _, queries, _ = call.query.shape
    marks = torch.zeros(rows, 1, queries, 1, dtype=torch.bool, device=call.query.device)
    for row in range(rows):
        marks[row, :, now.layout.rows([row]).image_slice] = True
    return marks


def but_text(call: AttentionCall, changed: AttentionCall, now: Moment) -> Tensor:
    """The output of ``changed`` at the cells of the picture, that of ``call`` elsewhere."""
    cells = picture_queries(call, now)
    if call.below is not None or (cells != cells[:1]).any():
        return torch.where(cells, changed.run(), call.run())
    own = cells[0, 0, :, 0]
    output = call.query.new_empty(*call.query.shape[:3], call.value.shape[-1])
    for queries, seen in ((own, changed), (~own, call)):
        output[:, :, queries] = seen.of_queries(queries).kernel()
    return output
