"""What objectives see in one step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from attncontrol.axes import Means, TokenMaps
from attncontrol.maps.functional import finest, grid_names, resize
from attncontrol.prompts.tokens import Subject, Token

PictureMaps = Float[Tensor, "batch height width key_height key_width"]


@dataclass(frozen=True, repr=False)
class StepMaps:
    """Attention probabilities of one step, differentiable, conditional branch only; of a video
    those of one frame.

    ``layers`` maps site names to [batch heads height width token]. The token axis of image b is
    ``tokens[b]``: all text positions of a UNet, the tokens of the prompt alone (no special or
    padding positions) in joint attention; shorter prompts are filled with zeros. ``subjects[b]``
    are the words of image b that the objective asked for, as positions of that axis.
    ``contrast[b]`` are the parts of the axis that compete in a softmax over tokens: one, or one per
    text encoder. ``previous`` is ``mean()`` after the step before, without gradient, for objectives
    with ``remembers = True``; None in the first step. ``pictures``, for objectives with
    ``self_attention = True``, maps site names to [batch height width key_height key_width]:
    attention among the cells of the picture, mean over heads, rows summing to 1. ``features``, for
    objectives with ``features = True``, maps site names to [batch height width channel]: what that
    attention puts out, heads side by side. ``prompts`` has one entry per image.

        def faint(maps):  # of every image: how little its first subject is attended to
            pairs = zip(maps.mean(), maps.subjects)
            return torch.stack([1 - mean[..., list(s[0].positions)].max() for mean, s in pairs])
    """

    layers: Mapping[str, Tensor]
    subjects: tuple[tuple[Subject, ...], ...]
    tokens: tuple[tuple[Token, ...], ...]
    contrast: tuple[tuple[slice, ...], ...]
    previous: TokenMaps | None = None
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)
    prompts: tuple[str | None, ...] = ()

    def mean(self) -> TokenMaps:
        """Unweighted mean over all heads of all layers; layers of different grids are resized to
        the finest one."""
        return mean_of(
            [maps.sum(1) for maps in self.layers.values()],
            sum(maps.shape[1] for maps in self.layers.values()),
        )

    def picture(self) -> PictureMaps:
        """Mean of ``pictures``, on the finest grid; rows sum to 1."""
        height, width = finest(maps.shape[1:3] for maps in self.pictures.values())
        return reduce(
            torch.add, (_on_grid(maps, height, width) for maps in self.pictures.values())
        ) / len(self.pictures)

    def __repr__(self) -> str:
        shapes = [maps.shape for maps in self.layers.values()]
        grids = f" on {grid_names(shape[2:4] for shape in shapes)}" if shapes else ""
        nouns = dict.fromkeys(subject.noun.text for of in self.subjects for subject in of)
        return (
            f"StepMaps({len(self.subjects)} images, {len(shapes)} sites{grids}; "
            f"subjects: {', '.join(nouns) or 'none'})"
        )


def _on_grid(maps: PictureMaps, height: int, width: int) -> Tensor:
    """Both ends of attention among cells on another grid."""
    if maps.shape[1:3] == (height, width):
        return maps
    rows = resize(maps.flatten(3), height, width).unflatten(3, maps.shape[3:])
    keys = resize(rows.flatten(0, 2)[..., None], height, width)[..., 0].unflatten(0, rows.shape[:3])
    return keys / keys.sum((3, 4), keepdim=True)


def mean_of(sums: list[Tensor], count: int) -> Means:
    """Sum of maps [*leading height width token] on the finest of their grids, divided by
    ``count``."""
    height, width = finest(maps.shape[-3:-1] for maps in sums)
    fine = (
        resize(maps.flatten(0, -4), height, width).unflatten(0, maps.shape[:-3]) for maps in sums
    )
    return reduce(torch.add, fine) / count


def words_outside(maps: StepMaps) -> list[list[list[int]]]:
    """For every image and every subject the positions of the prompt's word pieces that do not
    belong to it."""
    return [
        [
            [
                k
                for k, token in enumerate(tokens)
                if not token.special and k not in subject.positions
            ]
            for subject in subjects
        ]
        for tokens, subjects in zip(maps.tokens, maps.subjects, strict=True)
    ]
