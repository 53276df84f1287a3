"""Texts are seen beside the boxes of GLIGEN, not after them: ReGround (Lee et al. 2024, arXiv
2403.13589).

    GLIGEN      y = x + gated(x)      y + CrossAttention(norm(y), text)
    ReGround                          y + CrossAttention(norm(x), text)

so that what the boxes say does not hide the rest of the prompt. ``gated`` is the whole of
diffusers' ``GatedSelfAttentionDense``, its feed-forward part too, which the paper does not settle.
There are no settings and no training; ``gligen_scheduled_sampling_beta`` of the pipeline, the share
of the steps with boxes, can stay 1.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Where


@dataclass(frozen=True)
class ReGround(Edit):
    """Cross-attention reads the picture as it is before the boxes of GLIGEN change it.

        with edit(pipe, ReGround()):
            image = pipe(prompt, gligen_phrases=["a cat"], gligen_boxes=[box]).images[0]

    Raises SiteError for a model that is no GLIGEN.
    """

    where = Where(kind="cross")
    modules = ("*.fuser", "*.attn2")

    def __call__(self, call: AttentionCall, now: Moment) -> Result:  # noqa: ARG002
        return call

    def passed(self, name: str, inputs: Any, output: Tensor, now: Moment) -> Tensor:
        (block, _, part), changes = name.rpartition("."), now.notes(self)
        if part == "fuser":
            changes[block] = output - inputs["x"]
            return inputs["x"]
        return output + changes.pop(block) if block in changes else output
