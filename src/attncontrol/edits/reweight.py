"""Words that the picture looks at more, or less: attention reweighting of prompt-to-prompt (Hertz
et al. 2022, arXiv 2208.01626).

    value     A'_ij = c_j A_ij                           rows no longer sum to 1
    logit     A'    = softmax(s_ij + log c_j)            they do

with c_j the factor of the word of token j and 1 elsewhere. The official code has the first form,
with factors from -2 to 2, on the conditional rows of cross-attention in every step. In joint
attention the picture's rows are changed, those of the text never.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import TEXT
from attncontrol.errors import SettingError


@dataclass(frozen=True)
class Reweight(Edit):
    """Multiplies the attention to each word by its factor, in the conditional branch of the
    pictures ``images`` (all if None).

        with edit(pipe, Reweight({"red": 2.0})):

    ``form="value"`` takes any finite factor, ``"logit"`` those above 0. Recorded maps of the first
    form are A, not c A. Raises SettingError, WordError.
    """

    factors: Mapping[str, float]
    form: Literal["value", "logit"] = "value"
    images: tuple[int, ...] | None = None
    where = TEXT

    def __post_init__(self) -> None:
        lowest = 0.0 if self.form == "logit" else -math.inf
        wrong = {w: c for w, c in self.factors.items() if not lowest < c < math.inf}
        if wrong or not self.factors or self.form not in ("value", "logit"):
            raise SettingError(
                "factors map words to finite numbers, above 0 in the form 'logit', such as "
                f"{{'red': 2.0}}, not {dict(self.factors)} in the form {self.form!r}"
            )

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        weight = self._weights(call, now)
        if (weight == 1).all():
            return call
        joint = call.site.kind == "joint"
        if self.form == "logit":
            bias = weight.log()[:, None, None]
            return call.biased(bias * _picture_queries(call, now) if joint else bias)
        scaled = call.replace(value=call.value * weight[:, None, :, None].to(call.value))
        if not joint:
            return scaled
        return torch.where(_picture_queries(call, now) > 0, scaled.run(), call.run())

    def _weights(self, call: AttentionCall, now: Moment) -> Tensor:
        """[row key]"""
        weight = torch.ones(call.key.shape[0], call.key.shape[2], device=call.key.device)
        keys = torch.arange(call.key.shape[2], device=call.key.device)[now.layout.text]
        for row in range(len(weight))[now.rows("cond")]:
            image = now.image_of_row(row)
            if self.images is None or image in self.images:
                for word, factor in self.factors.items():
                    weight[row, keys[list(now.span(word, image).positions)]] *= factor
        return weight


def _picture_queries(call: AttentionCall, now: Moment) -> Tensor:
    """[row 1 query 1], 1 for those of the picture."""
    marks = torch.zeros(len(call.query), 1, call.query.shape[2], 1, device=call.query.device)
    for row in range(len(marks)):
        marks[row, :, now.layout.rows([row]).image_slice] = 1
    return marks
