"""Shared attention of StyleAligned (Hertz et al. 2024, arXiv 2312.02133): pictures in the style of
one of them.

    Q' = AdaIN(Q, Q_source)    K' = AdaIN(K, K_source)
    Attn(Q', [K'; c K_source], [V; V_source]), logits of the source's keys + ``shift``

AdaIN(X, Y) = std(Y) (X - mean X) / std X + mean Y over the cells of the picture, per head and
channel, with unbiased variances + 1e-5. Official: all self-attention, all steps, every branch with
its own source; for a reference picture c = 1 and shift = log 2, for a famous one shift = 0 and
c = 1/2; as an option normalisation layers are shared too, which is no part of this edit. In joint
attention the source's picture is shared, not its text.
"""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.extended import extended
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Where
from attncontrol.attention.source import Taken
from attncontrol.checks.arguments import NotNegative
from attncontrol.edits._rows import but_source


@dataclass(frozen=True)
class StyleAligned(Edit):
    """Every image also looks at the image ``source`` of the batch, with queries and keys of its
    statistics.

        with edit(pipe, StyleAligned()):
            tower, train = pipe(["a tower, flat cartoon", "a train, flat cartoon"]).images

    ``normalise=False`` leaves out AdaIN. ``scale`` is c. Recorded maps are those before the change.
    Raises SettingError; CouplingError if the pipeline makes no image of that number.
    """

    source: Source = 0
    scale: NotNegative = 1.0
    shift: float = 0.0
    normalise: bool = True
    where = Where(kind=("self", "joint"))

    def takes(self, call: AttentionCall, now: Moment) -> Taken:  # noqa: ARG002
        return Taken() if self.normalise else Taken(names=("key", "value"))

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        there, cells = now.source(call, self.source, *self.takes(call, now)), now.layout.image_slice
        changed = call
        if self.normalise:
            query = _aligned(call.query, there.query, cells)
            changed = call.replace(query=query, key=_aligned(call.key, there.key, cells))
        key, value = there.key[:, :, cells], there.value[:, :, cells]
        shared = extended(changed, self.scale * key, value, self.shift)
        return but_source(call, shared, now, self.source)


def _aligned(own: Tensor, other: Tensor, cells: slice) -> Tensor:
    """AdaIN of the cells of a picture [batch head position dim]."""
    x, y = own[:, :, cells], other[:, :, cells]
    spread = (x.var(2, keepdim=True) + 1e-5).sqrt(), (y.var(2, keepdim=True) + 1e-5).sqrt()
    result = own.clone()
    mean = y.mean(2, keepdim=True)
    result[:, :, cells] = (x - x.mean(2, keepdim=True)) / spread[0] * spread[1] + mean
    return result
