"""What pictures of the sprites world may be searched for: objectives (pictures, prompts) -> scores
for ``search_heads``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from attncontrol.sprites.quality import sprite_iou
from attncontrol.sprites.scorer import detect


def quality(pictures: Sequence[Any], prompts: Sequence[str]) -> list[float]:
    """The scorer's confidence in the nouns of the prompt, mean over them, 0 for a noun that is not
    shown; without nouns in the prompt, in whatever the picture shows."""
    from attncontrol.prompts.syntax import nouns

    scores = []
    for prompt, detections in zip(prompts, detect(list(pictures)), strict=True):
        confidences = {detection.noun: detection.confidence for detection in detections}
        wanted = nouns(prompt) or list(confidences)
        scores.append(
            float(np.mean([confidences.get(noun, 0.0) for noun in wanted])) if wanted else 0.0
        )
    return scores


def redness(pictures: Sequence[Any], _: Sequence[str]) -> list[float]:
    """Red minus the mean of green and blue, mean over the pixels, in -1 .. 1."""
    arrays = [np.asarray(picture, dtype=np.float64) / 255 for picture in pictures]
    return [float(a[..., 0].mean() - a[..., 1:].mean()) for a in arrays]


def size(pictures: Sequence[Any], _: Sequence[str]) -> list[float]:
    """Share of the picture that is covered by what the scorer finds."""
    return [float(sum(f.mask.mean() for f in detections)) for detections in detect(list(pictures))]


def texture(pictures: Sequence[Any], _: Sequence[str]) -> list[float]:
    """How patterned the background is: root mean square of its brightness (0 .. 1) minus that of
    the surroundings, a Gaussian of 8 px. What the scorer finds, and 6 px around it, does not count
    and is painted over with the mean of the rest first; 0 without any rest."""
    scores = []
    for picture, detections in zip(pictures, detect(list(pictures)), strict=True):
        gray = np.array(Image.fromarray(np.asarray(picture)).convert("L"))
        masks = np.any(
            [np.zeros(gray.shape, bool), *(detection.mask for detection in detections)], axis=0
        )
        rest = (
            np.asarray(Image.fromarray(masks).convert("L").filter(ImageFilter.MaxFilter(13))) == 0
        )
        gray[~rest] = gray[rest].mean() if rest.any() else 0
        blurred = np.asarray(Image.fromarray(gray).filter(ImageFilter.GaussianBlur(8)), float)
        scores.append(
            float(np.sqrt(np.mean((gray - blurred)[rest] ** 2)) / 255) if rest.any() else 0.0
        )
    return scores


def shape(pictures: Sequence[Any], _: Sequence[str]) -> list[float]:
    """How much what the pictures show has the shape of clean sprites, whatever the prompt:
    ``sprites.quality.sprite_iou``."""
    return [sprite_iou(detections) for detections in detect(list(pictures))]


OBJECTIVES = {
    "quality": quality,
    "shape": shape,
    "redness": redness,
    "size": size,
    "texture": texture,
}
