"""What edits share."""

from collections.abc import Callable, Iterator

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.errors import SiteError


def lerp(start: Callable[[], Tensor], end: Callable[[], Tensor], u: float) -> Tensor:
    """(1 - u) start + u end, where only what is needed is computed."""
    if u == 0:
        return start()
    return end() if u == 1 else start().lerp(end(), u)


def square(call: AttentionCall) -> None:
    """Raises SiteError unless queries and keys are the same positions."""
    if call.query.shape[2] != call.key.shape[2]:
        raise SiteError(
            f"{call.site.name} attends from {call.query.shape[2]} to {call.key.shape[2]} other "
            "positions, which have no identity; choose sites of self- or joint attention: "
            "Where(kind=('self', 'joint'))"
        )


def softmax_rows(call: AttentionCall, size: int = 512) -> Iterator[tuple[int, Tensor]]:
    """The softmax by groups of rows: the number of the first one, and [batch heads some key]."""
    for start in range(0, call.query.shape[2], size):
        yield start, call.of_queries(slice(start, start + size)).probabilities()
