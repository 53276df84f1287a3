"""What cells of a picture see where subjects are bound to cells of their own."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.edits._logits import visible
from attncontrol.edits._places import Together, of_words, positions
from attncontrol.edits.merge import keys_of
from attncontrol.prompts.tokens import ends
from attncontrol.prompts.words import Word


def near(cells: Tensor) -> Tensor:
    """Which cells see which [cell cell]: all but those of other subjects, of ``cells`` [subject
    cell]."""
    outside = ~cells.any(0)
    return Together(cells).of(slice(None)) | outside | outside[:, None]


def seen(
    subjects: Iterable[Word],
    hidden: Sequence[Word],
    cells: Tensor,
    call: AttentionCall,
    now: Moment,
    row: int,
) -> Tensor:
    """Which keys each cell sees [cell key]; those of ``subjects`` in ``cells`` [subject cell], none
    that are ``hidden``. A subject without cells is seen by none."""
    outside, anywhere = ~cells.any(0)[:, None], torch.ones_like(cells[:, :1])
    subjects = list(subjects)
    shown = of_words(subjects, cells, call, now, row)
    shown |= ~of_words(subjects, anywhere, call, now, row)
    if now.purpose == "gradient":
        shown |= outside
    else:
        for end in ends(now.text.tokens(now.image_of_row(row))):
            shown[:, keys_of(end, row, call, now)] &= ~outside
    for word in hidden:
        shown[:, keys_of(word, row, call, now)] = False
    if call.site.kind == "cross":
        left = visible(call.rows(slice(row, row + 1)))[0, 0]
        shown |= ~(shown & left).any(1, keepdim=True)
    return shown


def bound(
    subjects: Iterable[Word],
    hidden: Sequence[Word],
    cells: Sequence[Tensor],
    call: AttentionCall,
    now: Moment,
    rows: Sequence[int],
) -> AttentionCall:
    """The call in which ``rows`` see what they may, each with cells of its own."""
    conditional = range(len(call.query))[now.rows("cond")]
    shape = len(call.query), 1, call.query.shape[2], call.key.shape[2]
    allowed = torch.ones(shape, dtype=torch.bool, device=call.query.device)
    among = {} if call.site.kind == "cross" else {id(own): near(own) for own in cells}
    for row, own in zip(rows, cells, strict=True):
        picture, text = positions(call, now, row)
        if among:
            allowed[row, 0, picture[:, None], picture] = among[id(own)]
        if call.site.kind != "self" and row in conditional:
            shown = seen(subjects, hidden, own, call, now, row)
            allowed[row, 0, picture[:, None], text] = shown[:, text]
    return call.masked(allowed)
