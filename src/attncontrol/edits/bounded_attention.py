"""Subjects do not leak into each other: Bounded Attention (Dahary et al. 2024, arXiv 2403.16990).

    cells   see all cells, but none of other subjects from within a subject
    words   of a subject are seen by its cells alone; while a loss is descended also by cells of no
            subject, which else do not see the end of the text

Where subjects overlap a cell belongs to both. Masks of words act in the conditional branch, those
of cells in all, in all layers and steps; texts see what they saw. Officially articles, prepositions
and the like are hidden, too, here those that are named; and from step 15 of 50 on clusters of self-
attention take the place of boxes, which stay here. The loss to it is ``BoundedGuidance``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index
from attncontrol.edits._logits import visible
from attncontrol.edits._places import Together, inside, of_words, positions, require_regions
from attncontrol.edits.merge import is_chosen, keys_of
from attncontrol.prompts.tokens import ends
from attncontrol.prompts.words import Word


@dataclass(frozen=True)
class BoundedAttention(Edit):
    """Words lie in boxes (left, top, right, bottom) in 0 .. 1, or masks [height width]; no cell
    sees those that are ``hidden``.

    with edit(pipe, BoundedAttention({"red": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.0, 1.0, 1.0)})):
        image = pipe("a red apple and a frog").images[0]

    A cell that would see no text sees all of it. ``images``: all if None. Raises SettingError,
    WordError, CouplingError.
    """

    regions: Mapping[Word, Region]
    hidden: Sequence[Word] = ()
    images: tuple[Index, ...] | None = None
    where = Where(kind=("self", "cross", "joint"))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_regions(self.regions)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        cells = inside(self.regions.values(), now.layout, call.query.device)
        outside = ~cells.any(0)
        near = Together(cells).of(slice(None)) | outside | outside[:, None]
        rows = range(len(call.query))
        allowed = cells.new_ones(len(rows), 1, call.query.shape[2], call.key.shape[2])
        for row in (row for row in rows if is_chosen(self.images, row, now)):
            picture, text = positions(call, now, row)
            if call.site.kind != "cross":
                allowed[row, 0, picture[:, None], picture] = near
            if call.site.kind != "self" and row in rows[now.rows("cond")]:
                allowed[row, 0, picture[:, None], text] = self._seen(call, now, row, cells)[:, text]
        return call.masked(allowed)

    def _seen(self, call: AttentionCall, now: Moment, row: int, cells: Tensor) -> Tensor:
        """[cell key]"""
        own, outside = of_words(self.regions, cells, call, now, row), ~cells.any(0)[:, None]
        seen = own | ~own.any(0)
        if now.purpose == "gradient":
            seen |= outside
        else:
            for end in ends(now.text.tokens(now.image_of_row(row))):
                seen[:, keys_of(end, row, call, now)] &= ~outside
        for word in self.hidden:
            seen[:, keys_of(word, row, call, now)] = False
        if call.site.kind == "cross":
            left = visible(call.rows(slice(row, row + 1)))[0, 0]
            seen |= ~(seen & left).any(1, keepdim=True)
        return seen
