"""Attention left out: its output is 0 and the residual stream passes (the attention part of
skip-layer guidance)."""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout


@dataclass(frozen=True)
class SkipAttention:
    """Edit for ``perturb``. The bias of the projection after the heads remains."""

    def __call__(self, call: AttentionCall, _: Layout) -> Tensor:
        return call.value.new_zeros(*call.query.shape[:3], call.value.shape[-1])
