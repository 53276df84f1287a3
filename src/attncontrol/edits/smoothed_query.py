"""Smoothed energy guidance (SEG, Hong 2024, arXiv 2408.00760): queries are blurred over the
picture; SoftSEG of HeadHunter.

    A'  = (1 - u) softmax(q k) + u softmax((G * q) k)

with G the 2-D Gaussian of deviation ``sigma`` in cells, or the mean for an infinite one.

Blurring queries is blurring the logits over the grid of queries. The kernel has the official code's
size, the odd number at or below ceil(6 sigma) + 1, at most the side of the grid (one more if that
is even), with reflected borders, on the true grid (the official code: square ones). Queries are
taken after normalisation and rotation. Text queries of joint attention stay, except with
``scope="all"``, HeadHunter's SoftSEG: the mean over all positions, for an infinite ``sigma`` only.
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attncontrol.attention.blur import blur
from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.checks.arguments import Number, Share
from attncontrol.edits.merge import lerp
from attncontrol.errors import SettingError


@dataclass(frozen=True)
class SmoothedQuery(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run.

        with perturb(pipe, SmoothedQuery(sigma=2.0), scale=3.0, where=Where(kind="self")):
            image = pipe(prompt).images[0]

    Raises SettingError, CallError.
    """

    sigma: Number = math.inf
    u: Share | Progress = 1.0
    scope: Literal["picture", "all"] = "picture"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma > 0 or (self.scope == "all" and not math.isinf(self.sigma)):
            raise SettingError(
                "sigma is a number of cells above 0, and infinite for scope='all', not "
                f"{self.sigma}"
            )

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        u = at(self.u, now.progress)
        smoothed = call.replace(query=self._smoothed(call.query, now.layout))
        return smoothed if u == 1 else lerp(call.run, smoothed.run, u)

    def _smoothed(self, query: Tensor, layout: Layout) -> Tensor:
        if self.scope == "all":
            return query.mean(2, keepdim=True).expand_as(query).contiguous()
        smoothed, picture = query.clone(), query[:, :, layout.image_slice]
        mean = picture.mean(2, keepdim=True).expand_as(picture)
        blurred = mean if math.isinf(self.sigma) else blur(picture, layout.grid, self.sigma)
        smoothed[:, :, layout.image_slice] = blurred
        return smoothed
