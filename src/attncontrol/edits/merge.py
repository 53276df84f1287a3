"""What edits share."""

from collections.abc import Callable

from torch import Tensor

from attncontrol.errors import UnsupportedError
from attncontrol.processors import AttentionCall

Progress = Callable[[float], float]
"""A setting that changes during the run, from the share of it that is done, 0 .. 1."""


def lerp(start: Callable[[], Tensor], end: Callable[[], Tensor], u: float | Progress) -> Tensor:
    """(1 - u) start + u end, where only what is needed is computed."""
    if callable(u):
        raise TypeError("settings that change during the run are fixed by perturb(...) before every step")
    if u == 0:
        return start()
    return end() if u == 1 else start().lerp(end(), u)


def square(call: AttentionCall) -> None:
    """Raises UnsupportedError unless queries and keys are the same positions."""
    if call.query.shape[2] != call.key.shape[2]:
        raise UnsupportedError(
            f"{call.site.name} attends from {call.query.shape[2]} to {call.key.shape[2]} other positions, which have no identity; "
            "choose sites of self- or joint attention: Where(kind=('self', 'joint'))"
        )


def chunks(call: AttentionCall, size: int = 512) -> list[slice]:
    """Parts of the queries, for what needs rows of the softmax."""
    count = call.query.shape[2]
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
