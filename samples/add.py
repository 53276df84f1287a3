"""Add a thing beside what is there: LocalBlend around it, and steering for the new one.

python samples/add.py            writes edit-add.png
"""

import torch
from diffusers import DiffusionPipeline

from attncontrol import edit, sprites, steer
from attncontrol.edits import LocalBlend
from attncontrol.losses import Auto
from attncontrol.maps.draw import grid

SOURCE, TARGET, SEEDS = "a red cat", "a red cat and a frog", range(8)

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))
generators = [torch.Generator().manual_seed(seed) for seed in SEEDS for _ in range(2)]
of = tuple(k - k % 2 for k in range(2 * len(SEEDS)))  # every second picture is a source
with steer(pipe, Auto()), edit(pipe, LocalBlend(source=of, start=0.3)):
    made = pipe([SOURCE, TARGET] * len(SEEDS), generator=generators, **sprites.call("sd")).images
rows, columns = {"source": made[::2], "edited": made[1::2]}, [f"seed {s}" for s in SEEDS]
grid(rows, columns, cell=112, title=f"{SOURCE} / {TARGET}").save("edit-add.png")
