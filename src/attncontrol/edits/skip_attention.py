"""Attention left out: its output is 0 and the residual stream passes (the attention part of
skip-layer guidance)."""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment


@dataclass(frozen=True)
class SkipAttention(Edit):
    """The bias of the projection after the heads remains.

    with perturb(pipe, SkipAttention(), scale=2.5, where=Where(layers=("mid_block",))):
        image = pipe(prompt).images[0]
    """

    def __call__(self, call: AttentionCall, _: Moment) -> Result:
        return call.value.new_zeros(*call.query.shape[:3], call.value.shape[-1])
