"""Attention at another temperature (HeadHunter, Ahn et al. 2025, arXiv 2506.10978, equations 11 to
13).

    A'  = softmax(log(A) / tau)

tau = 0 puts everything on the largest entry of each row (SoftMG with u = 1).

Its code multiplies the logits by a "temperature" that is 1 / tau.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.checks.arguments import NotNegative
from attncontrol.edits.merge import softmax_rows


@dataclass(frozen=True)
class Temperature(Edit):
    """``tau`` at least 0, or a function of the progress of the run; 1 changes nothing.

    with perturb(pipe, Temperature(2.0), scale=3.0, where=Where(kind="self")):
        image = pipe(prompt).images[0]
    """

    tau: NotNegative | Progress

    def acts(self, progress: float) -> bool:
        return at(self.tau, progress, NotNegative) != 1

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        tau = at(self.tau, now.progress, NotNegative)
        return _largest(call) if tau == 0 else call.tempered(1 / tau)


def _largest(call: AttentionCall) -> Tensor:
    best = torch.cat([rows.argmax(-1, keepdim=True) for _, rows in softmax_rows(call)], 2)
    return call.value.gather(2, best.expand(-1, -1, -1, call.value.shape[-1]))
