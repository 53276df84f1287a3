"""One short call of any tiny pipeline of the zoo."""

import itertools
from contextlib import contextmanager

import torch

from tests.kit.zoo import EXTRA, MORE, ZOO
from tests.kit.zoo_chat import CHAT, EXTRA_CHAT, VIDEO

PROMPTS = ["a red cat and a turtle", "a dog"]
HEIGHT, WIDTH = 64, 96
ALL = ZOO | MORE | CHAT | VIDEO
OPTIONS = EXTRA | EXTRA_CHAT


def run(name, pipe, prompt=PROMPTS[0], *, steps=2, seed=0, **kwargs):
    """``seed`` is one for the batch, or a list of one for each picture."""
    call = (
        {"height": HEIGHT, "width": WIDTH, "num_inference_steps": steps, "output_type": "latent"}
        | OPTIONS.get(name, {})
        | kwargs
    )
    if name == "qwenimage" and call["negative_prompt"] is not None and not isinstance(prompt, str):
        call["negative_prompt"] = [""] * len(prompt)
    prompt = prompt if isinstance(prompt, str | None) else list(prompt)
    seeds = [seed] if isinstance(seed, int) else seed
    generators = [torch.Generator().manual_seed(one) for one in seeds]
    generator = generators[0] if isinstance(seed, int) else generators
    out = pipe(prompt=prompt, generator=generator, **call)
    return out.frames if hasattr(out, "frames") else out.images


@contextmanager
def stepped(scheduler, after):
    """``after(step, latents)`` changes what the scheduler's steps return."""
    step, count = scheduler.step, itertools.count()

    def changed(*args, **kwargs):
        result = step(*args, **kwargs)
        after(next(count), result[0])
        return result

    scheduler.step = changed
    try:
        yield
    finally:
        del scheduler.step
