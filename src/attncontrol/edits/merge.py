"""What edits share."""

from collections.abc import Callable, Iterator

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.errors import UnsupportedError

Progress = Callable[[float], float]
"""A setting that changes during the run, from the share of it that is done, 0 .. 1."""


def fixed(setting: float | Progress) -> float:
    """The setting, which ``perturb`` has fixed for the step."""
    if callable(setting):
        raise TypeError(
            "settings that change during the run are fixed by perturb(...) before every step"
        )
    return setting


def lerp(start: Callable[[], Tensor], end: Callable[[], Tensor], u: float | Progress) -> Tensor:
    """(1 - u) start + u end, where only what is needed is computed."""
    share = fixed(u)
    if share == 0:
        return start()
    return end() if share == 1 else start().lerp(end(), share)


def square(call: AttentionCall) -> None:
    """Raises UnsupportedError unless queries and keys are the same positions."""
    if call.query.shape[2] != call.key.shape[2]:
        raise UnsupportedError(
            f"{call.site.name} attends from {call.query.shape[2]} to {call.key.shape[2]} other positions, which have no identity; "
            "choose sites of self- or joint attention: Where(kind=('self', 'joint'))"
        )


def softmax_rows(call: AttentionCall, size: int = 512) -> Iterator[tuple[int, Tensor]]:
    """The softmax by groups of rows: the number of the first one, and [batch heads some key]."""
    for start in range(0, call.query.shape[2], size):
        yield start, call.of_queries(slice(start, start + size)).probabilities()
