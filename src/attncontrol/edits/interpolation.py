"""Two other ways from attention to the identity, beside the straight line of ``SoftIdentity``
(HeadHunter, arXiv 2506.10978).

    log-linear    A'_i ~ A_i^(1 - u) E_i^u,      E = (1 - epsilon) I + epsilon / N, since the
                                                 identity has no logarithm
    Fisher-Rao    sqrt(A'_i) = (sin((1 - u) t) sqrt(A_i) + sin(u t) e_i) / sin t,
                  cos t = sqrt(A_ii): the geodesic

Both need the diagonal of A only: with a = A_ii of the (tempered) map A and O = A V,

    log-linear    A' V = O + w (V_i - O),        w = g a / (1 + g a),  g = (E_ii / E_ij)^u - 1
    Fisher-Rao    A' V = c^2 (O - a V_i) + (d + c sqrt(a))^2 V_i,
                  c = sin((1 - u) t) / sin t,    d = sin(u t) / sin t

HeadHunter's "fisher_rao" is a straight line between sqrt(A) and I, its "fisher_rao_slerp" this one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Progress, Result, at
from attncontrol.attention.moment import Moment
from attncontrol.edits.merge import softmax_rows, square


def diagonal(call: AttentionCall) -> Tensor:
    """A_ii [batch heads query 1]."""
    return torch.cat(
        [rows.diagonal(start, 2, 3)[..., None] for start, rows in softmax_rows(call)], 2
    )


@dataclass(frozen=True)
class LogLinear(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run."""

    u: float | Progress = 1.0
    epsilon: float = 1e-6

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        square(call)
        u = at(self.u, now.progress)
        tempered = call.tempered(1 - u)
        off = self.epsilon / call.key.shape[2]
        gain = ((1 - self.epsilon + off) / off) ** u - 1
        share = gain * diagonal(tempered)
        output = tempered.run()
        return output + (share / (1 + share)).to(output) * (call.value - output)


@dataclass(frozen=True)
class FisherRao(Edit):
    """``u`` in 0 .. 1, or a function of the progress of the run."""

    u: float | Progress = 1.0

    def acts(self, progress: float) -> bool:
        return at(self.u, progress) != 0

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        square(call)
        u = at(self.u, now.progress)
        own = diagonal(call).clamp(0, 1)
        angle = own.sqrt().acos().clamp(min=1e-6)
        kept, added = ((1 - u) * angle).sin() / angle.sin(), (u * angle).sin() / angle.sin()
        rest, self_ = kept**2, (added + kept * own.sqrt()) ** 2
        output = call.run()
        return (
            rest.to(output) * (output - own.to(output) * call.value) + self_.to(output) * call.value
        )
