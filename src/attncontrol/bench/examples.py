"""True scenes with their masks, to read attention on."""

import numpy as np
from PIL import Image

from attncontrol.analysis.grounding import Example
from attncontrol.sprites.scenes import SIZE, Scene, Thing, render, sample


def examples(count: int, *, colors: bool = False, side: int = SIZE, seed: int = 7) -> list[Example]:
    """True scenes of two objects with the exact masks of their nouns, or of the colour words that
    only one of them has.

    ``side`` is that of the pictures, in pixels.
    """
    rng = np.random.default_rng((seed, 99))
    chosen: list[Example] = []
    while len(chosen) < count:
        scene = sample(rng, failures=False)
        if len(scene.named) != 2:
            continue
        picture, masks = (_scaled(array, side) for array in render(scene))
        if colors:
            named = {
                t.color: m
                for t, m in zip(scene.named, masks, strict=True)
                if t.color and _unique(scene, t)
            }
        else:
            named = {t.noun: m for t, m in zip(scene.named, masks, strict=True)}
        chosen += [Example(picture, scene.caption, named)] if named else []
    return chosen


def _scaled(array: np.ndarray, side: int) -> np.ndarray:
    """Picture (height, width, 3) or masks (objects, height, width) of ``side`` pixels."""
    if side == SIZE:
        return array
    images = array if array.dtype == bool else array[None]
    scaled = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
            for image in images
        ]
    )
    return scaled.astype(bool) if array.dtype == bool else scaled[0]


def _unique(scene: Scene, thing: Thing) -> bool:
    return sum(other.color == thing.color for other in scene.named) == 1
