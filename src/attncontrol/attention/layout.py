"""Where the picture and the text lie in the sequences of attention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from attncontrol.errors import CallError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Layout:
    """Where the picture and the text lie in the sequences of one site.

    The picture is a row-major ``grid`` (height, width), a video (frames, height, width). ``image``
    are its queries, in joint attention also its keys, as one slice or, where the rows of the batch
    differ, one for each; ``text`` are keys, and so are the ``further`` texts of edits in joint
    attention, which nobody sees unless an edit says so. ``references`` are the pictures that an
    editing model is given: the grid of each, and as its ``image`` where it lies; where the rows
    have others they are ``row_references``, and ``references`` of the layout of one row alone.
    Where the picture is no row of positions, ``order`` holds the numbers of all in the order in
    which they are seen, queries and the keys of self-attention alike; ``image`` counts in that.
    """

    grid: tuple[int, ...]
    image: slice | tuple[slice, ...] = field(default_factory=lambda: slice(None))
    text: slice = field(default_factory=lambda: slice(None))
    further: Mapping[str, slice] = field(default_factory=dict)
    references: "tuple[Layout, ...]" = ()
    row_references: "tuple[tuple[Layout, ...], ...]" = ()
    order: Tensor | None = None

    @property
    def image_slice(self) -> slice:
        """Where the picture lies in the rows, which do not differ; those of a single row never
        do."""
        if isinstance(self.image, tuple) and len(set(map(str, self.image))) > 1:
            raise CallError(
                "text of different lengths in the rows of one batch, so the picture lies elsewhere "
                "in each; pass one prompt at a time"
            )
        return self.image[0] if isinstance(self.image, tuple) else self.image

    def reading(self, of_rows: "Sequence[tuple[Layout, ...]]") -> "Layout":
        """With the reference pictures of every row of the batch."""
        if all(references == of_rows[0] for references in of_rows):
            return replace(self, references=of_rows[0])
        return replace(self, row_references=tuple(of_rows))

    def rows(self, rows: slice | Sequence[int]) -> "Layout":
        """Of some rows of the batch."""
        image = self.image if isinstance(self.image, slice) else _some(self.image, rows)
        others = _some(self.row_references, rows)
        references = others[0] if len(others) == 1 else self.references
        return replace(self, image=image, references=references, row_references=others)


def _some(values: tuple[Value, ...], rows: slice | Sequence[int]) -> tuple[Value, ...]:
    return values[rows] if isinstance(rows, slice) else tuple(values[r] for r in rows if values)
