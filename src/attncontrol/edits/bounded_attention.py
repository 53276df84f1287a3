"""Subjects do not leak into each other: Bounded Attention (Dahary et al. 2024, arXiv 2403.16990).

    cells   see all cells, but none of other subjects from within a subject
    words   of a subject are seen by its cells alone; while a loss is descended also by cells of no
            subject, which else do not see the end of the text

Masks of words act in the conditional branch, those of cells in all, in all layers and steps; texts
see what they saw. Officially articles, prepositions and the like are hidden, too, here those that
are named; and from step 15 of 50 on, every 5, clusters (``edits/_clusters.py``) of the maps so far
take the place of boxes: ``refine=Where(layers=("up_blocks.1",))`` of Stable Diffusion. Officially
the last noun of a subject is looked for, here all its tokens. The loss is ``BoundedGuidance``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index
from attncontrol.edits._bounds import bound
from attncontrol.edits._looked import add_maps, cells_of
from attncontrol.edits._places import inside, require_regions
from attncontrol.edits.merge import is_chosen
from attncontrol.prompts.words import Word


@dataclass(frozen=True)
class BoundedAttention(Edit):
    """Words lie in boxes (left, top, right, bottom) in 0 .. 1, or masks [height width]; no cell
    sees those that are ``hidden``.

    with edit(pipe, BoundedAttention({"red": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.0, 1.0, 1.0)})):
        image = pipe("a red apple and a frog").images[0]

    A cell that would see no text sees all of it. ``images``: all if None; ``refine``: sites of one
    grid, by whose maps boxes are refined. Raises SettingError, WordError, CouplingError.
    """

    regions: Mapping[Word, Region]
    hidden: Sequence[Word] = ()
    images: tuple[Index, ...] | None = None
    refine: Where | None = None
    where = Where(kind=("self", "cross", "joint"))
    own_words = ("regions", "hidden")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_regions(self.regions)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        rows = [row for row in range(len(call.query)) if is_chosen(self.images, row, now)]
        notes = [now.notes(self).setdefault(now.image_of_row(row), {}) for row in rows]
        boxes = inside(self.regions.values(), now.layout, call.query.device)
        cells = [cells_of(found, now, self.regions, boxes) for found in notes]
        masked = bound(self.regions, self.hidden, cells, call, now, rows)
        if self.refine and self.refine.matches(call.site) and now.purpose == "own":
            for row, found in zip(rows, notes, strict=True):
                if row in range(len(call.query))[now.rows("cond")]:
                    add_maps(found, masked, now, row, self.regions)
        return masked
