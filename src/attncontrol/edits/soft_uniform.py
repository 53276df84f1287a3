"""Every position looks everywhere alike (SoftUG of HeadHunter, Ahn et al. 2025, arXiv 2506.10978).

A'  = (1 - u) A + u / N
"""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.edits.merge import Progress, lerp


@dataclass(frozen=True)
class SoftUniform:
    """Edit for ``perturb``: ``u`` in 0 .. 1, or a function of the progress of the run. N counts all
    keys, text too."""

    u: float | Progress = 1.0

    def __call__(self, call: AttentionCall, _: Layout) -> Tensor:
        return lerp(
            call.run,
            lambda: call.value.mean(2, keepdim=True).expand(*call.query.shape[:3], -1),
            self.u,
        )
