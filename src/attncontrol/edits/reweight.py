"""Words that the picture looks at more, or less: Hertz et al. 2022, arXiv 2208.01626.

    value     A'_ij = c_j A_ij                           rows no longer sum to 1
    logit     A'    = softmax(s_ij + log c_j)            they do

with c_j the factor of the word of token j and 1 elsewhere. The official code has the first form, on
conditional rows of cross-attention, in all steps. In joint attention text rows stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import TEXT
from attncontrol.checks.arguments import Index
from attncontrol.edits._rows import picture_queries
from attncontrol.edits.merge import is_chosen, keys_of
from attncontrol.errors import SettingError
from attncontrol.prompts.words import Word


@dataclass(frozen=True)
class Reweight(Edit):
    """Multiplies the attention to each word by its factor, in the conditional branch of the
    pictures ``images`` (all if None); each of their prompts has all of the words.

        with edit(pipe, Reweight({"red": 2.0})):
            image = pipe("a red frog").images[0]

    ``form="value"`` takes any finite factor, ``"logit"`` those above 0. Recorded maps of the first
    form are A, not c A. Raises SettingError, WordError, CouplingError.
    """

    factors: Mapping[Word, float]
    form: Literal["value", "logit"] = "value"
    images: tuple[Index, ...] | None = None
    where = TEXT
    own_words = ("factors",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.factors or (self.form == "logit" and min(self.factors.values()) <= 0):
            raise SettingError(
                "factors map words to finite numbers, above 0 in the form 'logit', such as "
                f"{{'red': 2.0}}, not {dict(self.factors)} in the form {self.form!r}"
            )

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        weight = self._weights(call, now)
        if (weight == 1).all():
            return call
        seeing = picture_queries(call, now) if call.site.kind == "joint" else None
        if self.form == "logit":
            bias = weight.log()[:, None, None]
            return call.biased(bias if seeing is None else bias * seeing)
        scaled = call.replace(value=call.value * weight[:, None, :, None].to(call.value))
        return scaled if seeing is None else torch.where(seeing, scaled.run(), call.run())

    def _weights(self, call: AttentionCall, now: Moment) -> Tensor:
        """[row key]"""
        dtype = torch.promote_types(call.key.dtype, torch.float32)
        weight = call.key.new_ones(len(call.key), call.key.shape[2], dtype=dtype)
        for row in range(len(weight))[now.rows("cond")]:
            for word in self.factors if is_chosen(self.images, row, now) else ():
                weight[row, keys_of(word, row, call, now)] *= self.factors[word]
        return weight
