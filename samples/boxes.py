"""Say where subjects lie: boxes in fractions of the picture (left, top, right, bottom).

A mask [height, width] of any size may stand in place of a box, and a mapping from prompts to
layouts gives each prompt of a batch boxes of its own.

    python samples/boxes.py            writes boxes.png
"""

from dataclasses import replace

import torch
from diffusers import DiffusionPipeline

from attncontrol import sprites, steer
from attncontrol.losses import LayoutGuidance
from attncontrol.maps.draw import boxed, grid

PROMPT, SEEDS = "a cat and a frog", range(4)
BOXES = {"cat": (0.05, 0.5, 0.5, 0.95), "frog": (0.5, 0.05, 0.95, 0.5)}

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))


def generate():
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return pipe([PROMPT] * len(SEEDS), generator=generators, **sprites.call("sd")).images


plain = generate()
objective = LayoutGuidance(BOXES)
# its own schedule, with the step that was measured to place well on this model
with steer(pipe, objective, descent=replace(objective.descent, step_size=20.0)):
    guided = generate()

rows = {
    name: [boxed(picture, BOXES) for picture in pictures]
    for name, pictures in (("plain", plain), ("layout guidance", guided))
}
grid(rows, [f"seed {seed}" for seed in SEEDS], title=PROMPT).save("boxes.png")
