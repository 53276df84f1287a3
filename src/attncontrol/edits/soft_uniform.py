"""Every position looks everywhere alike (SoftUG of HeadHunter, Ahn et al. 2025, arXiv 2506.10978).

A'  = (1 - u) A + u / N
"""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.checks.arguments import Share
from attncontrol.edits.merge import lerp


@dataclass(frozen=True)
class SoftUniform(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run. N counts all keys, text too.

    with perturb(pipe, SoftUniform(u=0.5), scale=3.0, where=Where(kind="self")):
        image = pipe(prompt).images[0]
    """

    u: Share | Progress = 1.0

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        def mean() -> Tensor:
            return call.value.mean(2, keepdim=True).expand(*call.query.shape[:3], -1)

        return lerp(call.run, mean, at(self.u, now.progress))
