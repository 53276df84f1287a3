"""Rescue neglected subjects: the same seeds with and without Attend-and-Excite, side by side in
``compare.png``."""

import torch
from diffusers import StableDiffusionPipeline

from attncontrol import AttendAndExcite, record, sprites, steer
from attncontrol.maps.draw import grid, overlay

PROMPT, WORDS, SEEDS = "a cat and a frog", ["cat", "frog"], range(4)

pipe = StableDiffusionPipeline.from_pretrained(sprites.path("sd"))


def generate():
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return pipe(
        PROMPT,
        num_images_per_prompt=len(SEEDS),
        generator=generators,
        num_inference_steps=25,
        guidance_scale=2.0,
    ).images


with record(pipe, WORDS) as maps:
    plain = generate()
with steer(pipe, AttendAndExcite(WORDS)) as trace:
    guided = generate()

rows = {"plain": plain} | {
    word: [overlay(p, m) for p, m in zip(plain, maps[word], strict=True)] for word in WORDS
}
grid(rows | {"guided": guided}, [f"seed {seed}" for seed in SEEDS], title=PROMPT).save(
    "compare.png"
)
for step in trace.steps:
    losses = [round(loss, 2) for loss in step.losses]
    print(f"step {step.index}: losses {losses}, refinements {step.refinements}")
