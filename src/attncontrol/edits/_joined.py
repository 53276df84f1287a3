"""Joint attention with texts of regions."""

from collections.abc import Sequence

from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.edits._pieces import from_pieces
from attncontrol.edits._regions import Group
from attncontrol.edits._view import View, view_of

_MASK = 8 * 2**20  # values of a mask that are made at once; kernels make numbers of them


def joined(
    call: AttentionCall, groups: Sequence[Group], layout: Layout, base: float, separate: bool
) -> Tensor:
    """The output of joint attention."""
    views = [view_of(group, call, layout, separate) for group in groups]
    if call.below is None and (merged := _merged(call, views, base)) is not None:
        return merged
    output = _by_parts(call, views) if call.below is None else _whole(call, views)
    for view in views if base else ():
        at, cells = view.group.at, view.inside.nonzero()[:, 0]
        if call.below is None:
            plain = call.rows(at).of_queries(cells).kernel()
        else:
            plain = call.run()[at][:, :, cells]
        result = output[at].clone()
        result[:, :, cells] = result[:, :, cells].lerp(plain, base)
        output[at] = result
    return output


def _merged(call: AttentionCall, views: Sequence[View], base: float) -> Tensor | None:
    """The same without masks of pairs, where that can be."""
    output = None
    for view in views:
        found = from_pieces(call, view, base, max(_MASK // call.query.shape[2], 1))
        if found is None:
            return None
        if output is None:
            output = call.query.new_empty(*call.query.shape[:3], call.value.shape[-1])
        output[view.group.at] = found
    rest = sorted(set(range(len(call.query))) - {row for view in views for row in view.group.rows})
    if rest and output is not None:
        output[rest] = call.rows(rest).kernel()
    return output


def _by_parts(call: AttentionCall, views: Sequence[View]) -> Tensor:
    """By groups of queries, whose mask is small."""
    count = call.query.shape[2]
    output = call.query.new_empty(*call.query.shape[:3], call.value.shape[-1])
    rest = sorted(set(range(len(output))) - {row for view in views for row in view.group.rows})
    if rest:
        output[rest] = call.rows(rest).kernel()
    size = max(_MASK // count, 1)
    for view in views:
        for start in range(0, count, size):
            some = slice(start, start + size)
            output[view.group.at, :, some] = view.masked(call, some).kernel()
    return output


def _whole(call: AttentionCall, views: Sequence[View]) -> Tensor:
    """At once: edits inside this one know whole calls only."""
    count = call.query.shape[2]
    assert call.mask is not None  # it hides the texts
    mask = call.mask.expand(len(call.query), 1, count, count).clone()
    for view in views:
        of_rows = view.masked(call, slice(None)).mask
        assert of_rows is not None
        mask[view.group.at] = of_rows
    return call.replace(mask=mask).run().clone()
