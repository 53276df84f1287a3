"""Recolour, swap and remove one thing: prompt-to-prompt with LocalBlend, and steering.

python samples/changes.py            writes edit-changes.png
"""

import torch
from diffusers import DiffusionPipeline

from attncontrol import edit, sprites, steer
from attncontrol.edits import LocalBlend, Replace
from attncontrol.losses import Auto
from attncontrol.maps.draw import grid

SOURCE, SEEDS = "a red cat and a frog", range(8)
TARGETS = "a blue cat and a frog", "a red dog and a frog", "a red cat"

pipe, rows = DiffusionPipeline.from_pretrained(sprites.path("sd")), {}
of = tuple(k - k % 2 for k in range(2 * len(SEEDS)))  # every second picture is a source
for target in TARGETS:
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS for _ in range(2)]
    with steer(pipe, Auto()), edit(pipe, LocalBlend(source=of)), edit(pipe, Replace(source=of)):
        made = pipe([SOURCE, target] * len(SEEDS), generator=generators, **sprites.call()).images
    rows |= {SOURCE: made[::2], target: made[1::2]}
grid(rows, [f"seed {seed}" for seed in SEEDS], cell=112).save("edit-changes.png")
