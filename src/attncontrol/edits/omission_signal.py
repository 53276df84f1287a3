"""Words that a picture leaves out are told so more strongly: omission signal intervention, OSI
(Baek et al. 2026, arXiv 2605.14270).

    k_c   ->   k_c + strength sigma theta,    theta = (m_absent - m_present) / its length

in the heads whose keys tell best whether a word c is shown, in the first half of the steps. m are
the mean keys of words in pictures without and with what they name, sigma is the deviation of all
keys along theta: ``analysis.omission`` works both out. The opposite direction takes words away. The
official code has strength 5 and 300 of 1,368 heads of FLUX.1-dev, 7.5 and 100 of 576 of SD 3.5
medium, there in the conditional branch and for the tokens of T5 alone, here for those of CLIP too.
Its files hold -sigma theta for all heads, in the order of the blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index, Share, Such
from attncontrol.edits.merge import is_chosen, keys_of
from attncontrol.errors import SettingError
from attncontrol.prompts.words import Word

Directions = Annotated[
    Mapping[str, Tensor], Such("what analysis.omission.directions gives, tensors by site")
]
"""By site sigma theta of every head [head dim], 0 for heads that stay as they are."""


@dataclass(frozen=True)
class OmissionSignal(Edit):
    """Keys of ``words`` move along the ``directions`` of the model, in the conditional branch of
    the pictures ``images`` (all if None), in the ``first`` share of the steps.

        with edit(pipe, OmissionSignal(directions, ["frog"])):
            image = pipe("a cat and a frog").images[0]

    Raises SettingError, also for directions of another model; WordError, CouplingError.
    """

    directions: Directions
    words: Sequence[Word]
    strength: float = 5.0
    first: Share = 0.5
    images: tuple[Index, ...] | None = None
    where = Where(kind="joint")
    own_words = ("words",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.directions or not self.words:
            raise SettingError("give directions of some sites, and words=['frog']")

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        late = now.step.index >= steps_in(self.first, now.step.total)
        along = self.directions.get(call.site.name)
        if late or along is None:
            return call
        heads, dim = call.site.heads, call.key.shape[-1]
        if along.shape != (heads, dim) or call.key.shape[1] != call.query.shape[1]:
            raise SettingError(
                f"directions of {call.site.name} are {tuple(along.shape)}, its keys have {heads} "
                f"heads of {dim}: give those of this model"
            )
        if call.heads is not None:
            along = along[list(call.heads)]
        key = call.key.clone()
        for row in range(len(key))[now.rows("cond")]:
            for word in self.words if is_chosen(self.images, row, now) else ():
                at = keys_of(word, row, call, now)
                key[row, :, at] += self.strength * along.to(key)[:, None]
        return call.replace(key=key)
