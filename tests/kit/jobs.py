"""Folders of jobs, as the engine leaves them, without a model."""

import numpy as np
from PIL import Image

from attncontrol.jobs.index import opened
from attncontrol.jobs.item import Item
from attncontrol.jobs.keeping import pixels_of
from attncontrol.jobs.made import Made


def made(item, *, color="gray", folder=None, size=(24, 16), **what):
    """A picture of one colour, written into the folder; only in the index without one."""
    file, image = f"pictures/{item.name}.png", Image.new("RGB", size, color)
    if folder is not None:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        image.save(folder / file)
    return Made(item, **{"file": file, "pixels": pixels_of(image), "seconds": 1.0, **what})


def job(folder, pictures):
    """Writes the index of pictures that are made, in their order."""
    with opened(folder / "index.sqlite") as index:
        index.add(enumerate(pictures))
    return folder


def pairs(folder, prompts=("a cat", "a frog"), methods=("plain", "auto"), seeds=(0, 1), **what):
    """Plain pictures are red, the others blue."""
    items = [
        Item(prompt=prompt, seed=seed, method=method)
        for prompt in prompts
        for method in methods
        for seed in seeds
    ]
    colors = {"plain": "red"}
    return job(
        folder,
        [made(i, folder=folder, color=colors.get(i.method, "blue"), **what) for i in items],
    )


def redness(pictures, items):
    """A score: 1 of red, 0 of blue, and a hundredth of the seed."""
    return [
        float(np.asarray(picture)[0, 0, 0]) / 255 + item.seed / 100
        for picture, item in zip(pictures, items, strict=True)
    ]
