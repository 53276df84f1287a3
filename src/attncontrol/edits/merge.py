"""What edits share."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attncontrol.attention.between import require_positions
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.errors import CouplingError, SiteError
from attncontrol.prompts.words import Word


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


def diagonal(call: AttentionCall) -> Tensor:
    """A_ii [batch heads query 1]."""
    return torch.cat(
        [rows.diagonal(start, 2, 3)[..., None] for start, rows in softmax_rows(call)], 2
    )


def softmax_rows(call: AttentionCall, size: int = 512) -> Iterator[tuple[int, Tensor]]:
    """The softmax by groups of rows: the number of the first one, and [batch heads some key]."""
    for start in range(0, call.query.shape[2], size):
        yield start, call.of_queries(slice(start, start + size)).probabilities()


def is_chosen(images: tuple[int, ...] | None, row: int, now: Moment) -> bool:
    """Whether a row belongs to one of ``images``, all if None. Raises CouplingError if the pipeline
    makes no image of such a number."""
    if images is None:
        return True
    if not set(images) <= set(range(len(now.text.prompts))):
        raise CouplingError(
            f"images={images}, but the pipeline makes {len(now.text.prompts)}, numbered from 0"
        )
    return now.image_of_row(row) in images


def keys_of(word: Word, row: int, call: AttentionCall, now: Moment) -> list[int]:
    """Those of a word of the prompt of a row. Raises WordError."""
    text = range(call.key.shape[2])[now.layout.text]
    positions = now.span(word, now.image_of_row(row)).positions
    require_positions([positions], len(text))
    return [text[position] for position in positions]
