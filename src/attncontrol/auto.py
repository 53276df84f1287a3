"""The recommended objective: of each image the loss that was measured best for its prompt (README, "Which method").

    L = SynGen     where a noun of the prompt has a modifier     (with ``entities``: nouns without modifiers keep apart too)
    L = EBAMA      where none has

One gradient step of the family's size in each step of the first half of the run, no refinement. Sums of two losses were measured
no better than the better one.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.compose import Summable
from attncontrol.descent import Descent
from attncontrol.losses.ebama import EBAMA
from attncontrol.losses.syngen import SynGen
from attncontrol.maps import StepMaps
from attncontrol.tokens import Groups


@dataclass(frozen=True)
class Auto(Summable):
    """Objective for ``steer``. ``words`` None means the nouns of the prompt with their modifiers."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, thresholds={}))

    def __call__(self, maps: StepMaps) -> Tensor:
        modified = [any(subject.modifiers for subject in of_image) for of_image in maps.subjects]
        binding, presence = SynGen(self.words, entities=True)(maps), EBAMA(self.words)(maps)
        return torch.where(torch.tensor(modified, device=binding.device), binding, presence)
