"""What edits say of the attention to words that they take from a source, for those who record."""

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment

_NOTES = object()


def note(call: AttentionCall, now: Moment, image: int, shares: Tensor) -> None:
    """``shares`` [token] of the attention of an image to its text are the source's, 0 .. 1, in the
    heads of this call."""
    heads = call.query.shape[1] / call.site.heads
    now.notes(_NOTES)[call.site.name, image] = now.step.index, heads * shares.detach()


def noted(call: AttentionCall, now: Moment, image: int) -> Tensor | None:
    """What was said at this call; None if nothing was."""
    step, shares = now.notes(_NOTES).get((call.site.name, image), (None, None))
    return shares if step == now.step.index else None
