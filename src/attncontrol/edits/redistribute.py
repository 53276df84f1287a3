"""Attention to sinks goes to the other keys: visual attention redistribution (Kang et al. 2025,
arXiv 2503.03321).

    A'_j = share A_j                          of sinks j, whose sum is S
    A'_j = A_j (1 - share S) / (1 - S)        of all others

which is share A + (1 - share) softmax over the others. A key is a sink of a head here if it gets
high, near-uniform attention: more than ``factor`` times that of equal shares from more than the
share ``most`` of the queries, as in ``analysis.magnets``. The paper is of vision-language models;
it finds sinks by massive activations, which attention does not show, and redistributes in heads
that look at pictures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.checks.arguments import Positive, Share
from attncontrol.edits._logits import visible
from attncontrol.edits.merge import lerp, softmax_rows


def sinks(call: AttentionCall, factor: float, most: float) -> Tensor:
    """Which keys are sinks [batch heads 1 key]; none where nothing else could be seen."""
    seen = visible(call)
    seen = seen.expand(*seen.shape[:-1], call.key.shape[2])
    equal = 1 / seen.sum(-1, keepdim=True).amax(2, keepdim=True)
    counts = [(rows > factor * equal).sum(2, keepdim=True) for _, rows in softmax_rows(call)]
    found = torch.stack(counts).sum(0) > most * call.query.shape[2]
    return found & (seen & ~found).any(-1, keepdim=True).all(2, keepdim=True)


@dataclass(frozen=True)
class Redistribute(Edit):
    """Sinks keep a ``share`` of the attention that they get.

        with edit(pipe, Redistribute(0.6, factor=1.5), where=Where(kind="self")):
            image = pipe(prompt).images[0]

    Recorded maps are those before the change, with ``share=0`` those after it. Which keys are sinks
    is found in every call by an explicit softmax, some queries at a time. Raises SettingError.
    """

    share: Share
    factor: Positive = 3.0
    most: Share = 0.5

    def __call__(self, call: AttentionCall, now: Moment) -> Result:  # noqa: ARG002
        found = sinks(call, self.factor, self.most)
        if self.share == 1 or not found.any():
            return call
        others = call.masked(~found)
        return others if self.share == 0 else lerp(others.run, call.run, self.share)
