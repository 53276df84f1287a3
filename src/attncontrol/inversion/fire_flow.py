"""FireFlow (Deng et al. 2024, arXiv 2412.07517): the midpoint method for one evaluation a step, in
both directions.

    v_m = model(z + (s' - s) / 2 u, (s + s') / 2),   z' = z + (s' - s) v_m,   u' = v_m

u is the v_m of the step before; in the first step it is model(z, s).
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
class FireFlow(Inversion):
    """As ``RFSolver`` with one evaluation a step and one more in the first; what is open beside it
    sees one step more.

        trajectory = invert(pipe, photo, "a cat", method=FireFlow(), num_inference_steps=8)
    """

    flow: ClassVar[bool] = True
    solver: ClassVar[bool] = True

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        path, levels = [picture], schedule.levels
        velocity = yield Look(picture, 1.0, schedule.trained * levels[-1])
        for noise, more in pairwise(reversed(levels)):
            middle = path[0] + (more - noise) / 2 * velocity
            velocity = yield Look(middle, 1.0, schedule.trained * (noise + more) / 2)
            path.insert(0, path[0] + (more - noise) * velocity)
        return path

    def places(self, levels: Sequence[float]) -> Places:
        middles = [((noise + less) / 2, noise) for noise, less in pairwise(levels)]
        return [(levels[0], levels[0]), *middles]
