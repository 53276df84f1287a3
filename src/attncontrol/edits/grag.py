"""How closely an editing model keeps to the picture it is given: group relative attention guidance,
GRAG (Zhang et al. 2025, arXiv 2510.24657).

    K'_j = bias m + delta (K_j - m)     for the keys j of a reference picture, m their mean

per head, after rotation, for all queries, layers, steps and branches, as in the official code for
Qwen-Image-Edit; the paper derives it for the queries of the picture. ``delta`` above 1 keeps more
of the reference, below 1 less; the code recommends 0.8 to 1.7 in steps of 0.01, with bias = 1.
A region is ours: K' = (1 - M) K + M K', M the share of a cell that it covers, m still of all keys.
"""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, coverage, require_region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index, NotNegative
from attncontrol.errors import CouplingError


@dataclass(frozen=True)
class GRAG(Edit):
    """The keys of the reference pictures of FLUX Kontext, FLUX.2, Qwen-Image-Edit and others differ
    from their mean ``delta`` times as much, a number or a function of the progress of the run.

        with edit(pipe, GRAG(1.15, region=(0.0, 0.0, 1.0, 0.5))):  # keep the upper half
            image = pipe(prompt="make it snow", image=photo).images[0]

    ``region`` is a box or mask of the reference, ``reference`` the number of one of several. Where
    there is none, the keys are those of the picture itself. Raises SettingError; CouplingError for
    a reference that was not given.
    """

    delta: NotNegative | Progress
    bias: NotNegative = 1.0
    region: Region | None = None
    reference: Index | None = None
    where = Where(kind="joint")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region is not None:
            require_region(self.region)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        key, delta = call.key.clone(), at(self.delta, now.progress, NotNegative)
        for row in range(len(key)):
            for layout in self._groups(now.layout, row):
                own = call.key[row, :, layout.image_slice]
                mean = own.mean(1, keepdim=True)
                changed = self.bias * mean + delta * (own - mean)
                key[row, :, layout.image_slice] = own + self._share(layout, own) * (changed - own)
        return call.replace(key=key)

    def _groups(self, layout: Layout, row: int) -> tuple[Layout, ...]:
        own = layout.rows([row])
        if self.reference is None:
            return own.references if layout.row_references else own.references or (own,)
        most = max(map(len, layout.row_references or (own.references,)))
        if self.reference >= most:
            raise CouplingError(
                f"reference={self.reference}, but the pipeline is given "
                f"{most} reference pictures, numbered from 0"
            )
        return own.references[self.reference : self.reference + 1]

    def _share(self, layout: Layout, like: Tensor) -> Tensor | float:
        """[cell 1]"""
        if self.region is None:
            return 1.0
        share = coverage(self.region, *layout.grid[-2:]).to(like).flatten()
        return share.repeat(like.shape[1] // len(share))[:, None]
