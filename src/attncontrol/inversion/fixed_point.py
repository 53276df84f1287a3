"""Implicit inversion by fixed-point iteration (AIDI, Pan et al. 2023, arXiv 2309.04907; SPDInv, Li
et al. 2024, arXiv 2403.11105).

    z_0 = z',   z_k+1 = (z' - b model(z_k, t)) / a

z' has less noise than z. Where it converges, z' = a z + b model(z, t): a plain run from z goes
back. One iteration is DDIM inversion. AIDI's mixing of iterates and SPDInv's gradient steps on the
same fixed point are left out.
"""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.checks.arguments import Count
from attncontrol.inversion._method import Inversion
from attncontrol.inversion._schedule import Look, Looks, Schedule


@dataclass(frozen=True)
class FixedPoint(Inversion):
    """The picture comes back as nearly as it converges, by the model's own predictions, if the run
    has the prompt and guidance of the inversion.

        trajectory = invert(pipe, photo, "a cat", method=FixedPoint(iterations=5))
    """

    iterations: Count = 5

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        path = [picture]
        for place in reversed(range(len(schedule.updates))):
            update, scale = schedule.updates[place], schedule.scale(place + 1)
            latents = path[0]
            for _ in range(self.iterations):
                prediction = yield Look(latents, scale, update.timestep)
                latents, scale = update.back(path[0], prediction), schedule.scale(place)
            path.insert(0, latents)
        return path
