"""Apart: each subject, with its modifiers, keeps to a part of the picture of its own, on the side
to which its map leans already.

    c_k = sum over cells of A_k^2 (x, y) / sum A_k^2         of the noun alone, without gradient
    a_k = middle of the picture + (c_k - mean of c) / (4 |c_k - mean of c|)
    P_k = the cells nearer to a_k than to another a: two subjects have a half of the picture each
    L   = mean over subjects of   layout guidance with P_k as box   +   |centroid of A_k^2 - a_k|^2

A_k: mean over heads and layers, summed over the tokens of noun and modifiers in the second term;
layout guidance (Chen et al. 2023, arXiv 2304.03373) looks at every head and token by itself. Places
(x, y) in fractions of the picture; they follow the maps. 0 for a single subject.

Of no paper: segregation, as in A-STAR, asks for maps that do not overlap, as two small ones on one
spot may; here subjects have somewhere to go, side by side: not for "a lion with a crown".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from attncontrol.axes import PixelMap, SpatialMaps, WordMaps
from attncontrol.losses.layout_guidance import confinement
from attncontrol.losses.placement import centering
from attncontrol.maps.functional import cell_middles, centroid, summed
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective, several
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups


def apart(layers: Sequence[Tensor], mean: SpatialMaps, subjects: Sequence[Subject]) -> Tensor:
    """The loss of one image; ``layers`` are [heads height width token], of any grids."""
    if len(subjects) < 2:
        return mean.sum() * 0
    nouns = summed(mean.detach(), [subject.noun for subject in subjects])
    places = _places([noun.square() for noun in nouns])
    inside = [confinement(heads, subjects, _parts(places, *heads.shape[1:3])) for heads in layers]
    return torch.stack(inside).mean() + centering(mean, subjects, places)


def _places(nouns: Sequence[PixelMap]) -> Float[Tensor, "word xy"]:
    """a_k; the middle where all lean to the same place."""
    centres = torch.stack([centroid(noun) for noun in nouns])
    away = centres - centres.mean(0)
    return 0.5 + away / (4 * away.norm(dim=1, keepdim=True)).clamp(min=1e-9)


def _parts(places: Float[Tensor, "word xy"], height: int, width: int) -> WordMaps:
    """P_k; cells as near to several places are divided between them."""
    distances = (cell_middles(height, width, places) - places[:, None, None]).norm(dim=-1)
    nearest = (distances <= distances.amin(0) + 1e-6).to(places)
    return nearest / nearest.sum(0)


@dataclass(frozen=True)
class Apart(Objective):
    """Objective for ``steer``. ``words`` None: the nouns and their modifiers, by the parse."""

    words: Groups | None = None
    descent: Descent = field(default_factory=lambda: Descent(final=1.0, thresholds={}))
    acts = several

    def __call__(self, maps: StepMaps) -> Tensor:
        layers = zip(*maps.layers.values(), strict=True)  # of every image
        each = zip(layers, maps.mean(), maps.subjects, strict=True)
        return torch.stack([apart(*of_image) for of_image in each])


def method(words: Groups | None) -> Objective:
    """As ``--method apart``: ten times the loss, to suit the step sizes of the families."""
    return 10.0 * Apart(words)


def example() -> Apart:
    """For the prompt "a red cat and a frog"."""
    return Apart(words=[["red", "cat"], "frog"])
