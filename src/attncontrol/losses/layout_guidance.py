"""Layout guidance, backward (Chen et al. 2023, arXiv 2304.03373): the attention to a word lies
inside its box, head by head.

    a_k  = sum (A_k M) / sum A_k         share of token k's attention inside the box, of one head
    L    = mean over words and layers of   mean over the word's tokens and all heads of (1 - a_k)^2

M is the share of each cell that the box covers, divided by the largest; rounded to whole cells, as
in the official code, it placed a little worse. Raw probabilities, no averaging of heads before the
loss. In the first ten of 50 steps up to five gradient steps each, at least one, until L <= 0.2.

The official code, for Stable Diffusion 1.5, looks at the middle block and the first block of the
decoder with attention, and steps by 30 sigma_t^2 in latents of LMS, 29.9 in the network's input;
once it has reached 0.2 it never measures again. Here layers and step are those of every loss of
the family, 20 there and no middle block. To follow it:

    steer(pipe, LayoutGuidance(layout), where=Where("cross", layers=("mid_block", "up_blocks.1")),
          descent=Descent(step_size=30, final=1.0, guided=0.2, thresholds=early(0.8),
                          max_refinements=4))
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import HeadMaps, LayerMaps, PixelMap
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import coverages_like
from attncontrol.objectives.descent import Descent, early
from attncontrol.objectives.objective import OfLayout
from attncontrol.prompts.tokens import Subject


def energy(maps: HeadMaps, mask: PixelMap) -> Tensor:
    """Mean of (1 - share inside)^2 over many maps."""
    inside = (maps * mask).sum((-2, -1)) / maps.sum((-2, -1)).clamp(min=1e-12)
    return (1 - inside).square().mean(-1)


def confinement(heads: LayerMaps, subjects: Sequence[Subject], masks: Iterable[PixelMap]) -> Tensor:
    """Mean over words of ``energy`` over the tokens of each and all heads, of one layer of one
    image."""
    maps = [
        heads[..., list(subject.positions)].permute(0, 3, 1, 2).flatten(0, 1)
        for subject in subjects
    ]
    return torch.stack([energy(*pair) for pair in zip(maps, masks, strict=True)]).mean()


@dataclass(frozen=True)
class LayoutGuidance(OfLayout):
    """Objective for ``steer``; ``layout`` as in ``OfLayout``."""

    descent: Descent = field(
        default_factory=lambda: Descent(
            final=1.0, guided=0.2, thresholds=early(0.8), max_refinements=4
        )
    )

    def __call__(self, maps: StepMaps) -> Tensor:
        terms = []
        for layer in maps.layers.values():
            masks = coverages_like(self.layout, layer[:, 0], maps.prompts)
            each = zip(layer, maps.subjects, masks, strict=True)
            terms.append(torch.stack([confinement(*of_image) for of_image in each]))
        return torch.stack(terms).mean(0)


def example() -> LayoutGuidance:
    """For the prompt "a red cat and a frog"."""
    return LayoutGuidance({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
