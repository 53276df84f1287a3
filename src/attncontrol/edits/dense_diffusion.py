"""Words keep to their regions by modulated logits: DenseDiffusion (Kim et al. 2023, arXiv
2308.12964).

    s' = s + l R (max s - s) - l (1 - R) (s - min s),      l = w (t / 1000)^5 (1 - size area)

over the keys of one row. R is 1 where the cell of the query lies in the region of the word of the
key, in self-attention where both cells lie in one region; ``area`` is the share of all cells that
lie in a region with that of the query. In the conditional branch, the first 30 % of the steps, all
layers; w = 1 for words and 0.3 among cells, size = 1. In joint attention the queries are those of
the picture, and its keys and those of the text have extremes of their own.

Officially the regions cover the picture, and each phrase is encoded alone; here cells of no region
stay as they are, and so do the encodings. t is the scheduler's timestep.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.regions import Region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index, NotNegative, Share
from attncontrol.edits._logits import pulled, with_bias
from attncontrol.edits._places import Together, inside, of_words, positions, require_regions
from attncontrol.edits.merge import is_chosen
from attncontrol.prompts.words import Word


@dataclass(frozen=True)
class DenseDiffusion(Edit):
    """Words or phrases lie in boxes (left, top, right, bottom) in 0 .. 1, or masks [height width].

        with edit(pipe, DenseDiffusion({"frog": (0.0, 0.2, 0.5, 1.0)})):
            image = pipe("a frog on a stone").images[0]

    ``cross`` and ``among`` are w for words and among cells, ``first`` the share of the steps. Maps
    of cross-attention are recorded after the change, others before it. Raises SettingError,
    WordError; CouplingError for ``images`` (all if None) that the pipeline does not make.
    """

    regions: Mapping[Word, Region]
    cross: NotNegative = 1.0
    among: NotNegative = 0.3
    size: Share = 1.0
    first: Share = 0.3
    images: tuple[Index, ...] | None = None
    where = Where(kind=("self", "cross", "joint"))
    own_words = ("regions",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_regions(self.regions)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        conditional = range(len(call.query))[now.rows("cond")]
        rows = [row for row in conditional if is_chosen(self.images, row, now)]
        if not rows or now.step.index >= steps_in(self.first, now.step.total):
            return call
        cells = inside(self.regions.values(), now.layout, call.query.device)
        placed, near = cells.any(0).nonzero()[:, 0], Together(cells)
        by = now.step.noise**5 * (1 - self.size * near.share)[placed, None]

        def bias(part: AttentionCall, row: int, chunk: Tensor) -> Tensor:
            (picture, text), here, added = positions(call, now, row), placed[chunk], []
            if call.site.kind != "self":
                up = of_words(self.regions, cells, call, now, row)[here][:, text]
                added.append(pulled(part, text, up, self.cross * by[chunk]))
            if call.site.kind != "cross":
                added.append(pulled(part, picture, near.of(here), self.among * by[chunk]))
            return sum(added[1:], added[0])

        return with_bias(call, {row: positions(call, now, row)[0][placed] for row in rows}, bias)
