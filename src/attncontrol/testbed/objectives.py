"""What pictures of the sprites world may be searched for: objectives (pictures, prompts) -> scores for ``search_heads``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attncontrol.testbed.quality import sprite_iou
from attncontrol.testbed.scorer import find


def quality(pictures: Sequence[Any], prompts: Sequence[str]) -> list[float]:
    """The scorer's confidence in the nouns of the prompt, mean over them, 0 for a noun that is not shown; without nouns in the
    prompt, in whatever the picture shows."""
    from attncontrol.syntax import nouns

    scores = []
    for prompt, findings in zip(prompts, find(list(pictures)), strict=True):
        of = {finding.noun: finding.confidence for finding in findings}
        wanted = nouns(prompt) or list(of)
        scores.append(float(np.mean([of.get(noun, 0.0) for noun in wanted])) if wanted else 0.0)
    return scores


def redness(pictures: Sequence[Any], _: Sequence[str]) -> list[float]:
    """Red minus the mean of green and blue, mean over the pixels, in -1 .. 1."""
    arrays = [np.asarray(picture, dtype=np.float64) / 255 for picture in pictures]
    return [float(a[..., 0].mean() - a[..., 1:].mean()) for a in arrays]


def size(pictures: Sequence[Any], _: Sequence[str]) -> list[float]:
    """Share of the picture that is covered by what the scorer finds."""
    return [float(sum(f.mask.mean() for f in findings)) for findings in find(list(pictures))]


def shape(pictures: Sequence[Any], _: Sequence[str]) -> list[float]:
    """How much what the pictures show has the shape of clean sprites, whatever the prompt: ``testbed.quality.sprite_iou``."""
    return [sprite_iou(findings) for findings in find(list(pictures))]


OBJECTIVES = {"quality": quality, "shape": shape, "redness": redness, "size": size}
