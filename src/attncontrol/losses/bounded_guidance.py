"""Bounded guidance of Bounded Attention (Dahary et al. 2024, arXiv 2403.16990): what looks at a
subject lies in its box, not in the background.

    IoU_i  = F / (F + n B)
    L      = 1/n sum_i   3/2 (1 - IoU_i)^2 of words   +   1/2 (1 - IoU_i)^2 among cells

for n subjects: F, B are the attention of the cells of box i, and of the cells of no box, to the
words of i and the end of the text, or to the cells of box i; sums over cells, heads and layers. In
joint attention the end is left out: losses see the words alone. The masks that go with it are
``BoundedAttention`` of ``attncontrol.edits``: ``edit`` and ``steer`` together.

The official code, for SDXL and Stable Diffusion 1.5, descends the sum over subjects and stops at a
mean of 0.2: up to five steps in each of the first 15 of 50, at least one, of a size that falls from
18 to 5 (8 to 2), on its layers 70 to 81 (12 to 19) of all, cross-attention counted too. Here layers
and step are those of every loss of the family, and the mean is both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.axes import Area, SelfMap, SpatialMaps
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import masks_like
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import OfLayout
from attncontrol.prompts.tokens import Subject, ends


def apart(attention: Tensor, masks: Sequence[Area], number: int) -> Tensor:
    """(1 - IoU)^2 of a subject, from how much each cell looks at it [height width]."""
    outside = ~torch.stack(list(masks)).any(0)
    own, other = attention[masks[number]].sum(), attention[outside].sum()
    return (1 - own / (own + len(masks) * other).clamp(min=1e-12)).square()


def of_words(
    maps: SpatialMaps, subjects: Sequence[Subject], masks: Sequence[Area], end: Sequence[int]
) -> Tensor:
    """Mean over the subjects of one image."""
    each = [maps[..., [*subject.positions, *end]].sum(-1) for subject in subjects]
    return torch.stack([apart(seen, masks, i) for i, seen in enumerate(each)]).mean()


def among_cells(picture: SelfMap, masks: Sequence[Area]) -> Tensor:
    """Mean over the boxes of one image."""
    each = [picture[:, :, mask].sum(-1) for mask in masks]
    return torch.stack([apart(seen, masks, i) for i, seen in enumerate(each)]).mean()


@dataclass(frozen=True)
class BoundedGuidance(OfLayout):
    """Objective for ``steer``; ``layout`` as in ``OfLayout``."""

    words_weight: float = 1.5
    cells_weight: float = 0.5
    descent: Descent = field(
        default_factory=lambda: Descent(
            guided=0.3, thresholds={i / 50: 0.8 for i in range(15)}, max_refinements=4
        )
    )
    self_attention = True

    def __call__(self, maps: StepMaps) -> Tensor:
        mean, picture = maps.mean(), maps.picture()
        masks = [masks_like(self.layout, of, maps.prompts) for of in (mean, picture)]
        losses = []
        for i, (image, own) in enumerate(zip(mean, picture, strict=True)):
            words = of_words(image, maps.subjects[i], masks[0][i], ends(maps.tokens[i]))
            cells = among_cells(own, masks[1][i])
            losses.append(self.words_weight * words + self.cells_weight * cells)
        return torch.stack(losses)


def example() -> BoundedGuidance:
    """For the prompt "a red cat and a frog"."""
    return BoundedGuidance({"cat": (0.0, 0.0, 0.5, 1.0), "frog": (0.5, 0.25, 1.0, 0.75)})
