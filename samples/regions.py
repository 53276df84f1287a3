"""A text for each part of the picture: Regions alone, and with a loss that puts things there.

python samples/regions.py            writes edit-regions.png
"""

from contextlib import ExitStack

import torch
from diffusers import DiffusionPipeline

from attncontrol import edit, sprites, steer
from attncontrol.edits import Regions
from attncontrol.losses import Placement
from attncontrol.maps.draw import boxed, grid

BOXES = {"a red cat": (0.05, 0.5, 0.5, 0.95), "a blue frog": (0.5, 0.05, 0.95, 0.5)}
WORDS = {"cat": BOXES["a red cat"], "frog": BOXES["a blue frog"]}
PROMPT, SEEDS, rows = "a red cat and a blue frog", range(8), {}

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))
for name in ("plain", "Regions", "Regions, Placement"):
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    with ExitStack() as stack:
        if "Placement" in name:
            stack.enter_context(steer(pipe, Placement(WORDS)))
        if "Regions" in name:
            stack.enter_context(edit(pipe, Regions(BOXES)))
        made = pipe([PROMPT] * len(SEEDS), generator=generators, **sprites.call("sd")).images
    rows[name] = [boxed(picture, BOXES) for picture in made]
grid(rows, [f"seed {seed}" for seed in SEEDS], cell=112, title=PROMPT).save("edit-regions.png")
