"""Pictures in the style of the first one: StyleAligned. These small models take next to nothing
over; what it is meant for are large ones.

    python samples/style.py            writes edit-style.png
"""

import torch
from diffusers import DiffusionPipeline

from attncontrol import edit, sprites
from attncontrol.edits import StyleAligned
from attncontrol.maps.draw import grid

THINGS = ("red cat", "frog", "car", "dog", "turtle", "clock", "rabbit", "apple")

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))


def generate():
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(THINGS))]
    return pipe([f"a {of}" for of in THINGS], generator=generators, **sprites.call("sd")).images


rows = {"plain": generate()}
with edit(pipe, StyleAligned()):
    rows["StyleAligned"] = generate()
grid(rows, THINGS, cell=112, title="in the style of the first").save("edit-style.png")
