"""RF-Solver (Wang et al. 2024, arXiv 2411.04746): the second order of rectified flow's Taylor
series, in both directions.

    v = model(z, s),   v_m = model(z + (s' - s) / 2 v, (s + s') / 2)
    z' = z + (s' - s) v + (s' - s)^2 / 2 v^(1),   v^(1) = (v_m - v) / ((s' - s) / 2)

which is z + (s' - s) v_m, the midpoint method. Here s are the noise levels of the scheduler.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from attncontrol.inversion._method import Inversion
from attncontrol.inversion._schedule import Look, Looks, Schedule
from attncontrol.inversion._solver import Places


@dataclass(frozen=True)
class RFSolver(Inversion):
    """Two evaluations a step, in the run that edits too, for all its images; what is open beside it
    sees twice the steps. The picture comes back nearly, without guidance.

        trajectory = invert(pipe, photo, "a cat", method=RFSolver(), num_inference_steps=15)
    """

    flow: ClassVar[bool] = True
    solver: ClassVar[bool] = True

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        path, levels = [picture], schedule.levels
        for noise, more in pairwise(reversed(levels)):
            velocity = yield Look(path[0], 1.0, schedule.trained * noise)
            middle = path[0] + (more - noise) / 2 * velocity
            velocity = yield Look(middle, 1.0, schedule.trained * (noise + more) / 2)
            path.insert(0, path[0] + (more - noise) * velocity)
        return path

    def places(self, levels: Sequence[float]) -> Places:
        return [place for noise, less in pairwise(levels)
                for place in ((noise, noise), ((noise + less) / 2, noise))]  # fmt: skip
