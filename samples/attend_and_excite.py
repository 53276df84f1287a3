"""Rescue neglected subjects: the same seeds plain and with Attend-and-Excite, and what the words
attend to in the plain ones.

    python samples/attend_and_excite.py            writes compare.png
"""

import torch
from diffusers import DiffusionPipeline

from attncontrol import record, sprites, steer
from attncontrol.losses import AttendAndExcite
from attncontrol.maps.draw import grid, overlay

PROMPT, WORDS, SEEDS = "a cat and a frog", ["cat", "frog"], range(4)

pipe = DiffusionPipeline.from_pretrained(sprites.path("sd"))


def generate():
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return pipe([PROMPT] * len(SEEDS), generator=generators, **sprites.call("sd")).images


with record(pipe, WORDS) as maps:
    plain = generate()
with steer(pipe, AttendAndExcite(WORDS)) as trace:
    guided = generate()

rows = {"plain": plain} | {
    word: [overlay(p, m) for p, m in zip(plain, maps[word], strict=True)] for word in WORDS
}
columns = [f"seed {seed}" for seed in SEEDS]
grid(rows | {"guided": guided}, columns, title=PROMPT).save("compare.png")
for step in trace.steps:
    losses = ", ".join(f"{loss:.2f}" for loss in step.losses)
    print(f"step {step.index}: losses {losses}, refinements {step.refinements}")
