"""Attention at another temperature (HeadHunter, Ahn et al. 2025, arXiv 2506.10978, equations 11 to
13).

    A'  = softmax(log(A) / tau)          tau = 0: everything on the largest entry of each row (SoftMG with u = 1)

Its code multiplies the logits by a "temperature" that is 1 / tau.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.edits.merge import Progress, fixed, softmax_rows


@dataclass(frozen=True)
class Temperature:
    """Edit for ``perturb``: ``tau`` at least 0, or a function of the progress of the run; 1 changes
    nothing."""

    tau: float | Progress

    def __call__(self, call: AttentionCall, _: Layout) -> Tensor:
        tau = fixed(self.tau)
        if tau == 1:
            return call.run()
        if tau == 0:
            return _largest(call)
        return call.tempered(1 / tau).run()


def _largest(call: AttentionCall) -> Tensor:
    best = torch.cat([rows.argmax(-1, keepdim=True) for _, rows in softmax_rows(call)], 2)
    return call.value.gather(2, best.expand(-1, -1, -1, call.value.shape[-1]))
