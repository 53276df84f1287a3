"""What an edit of a picture that exists costs, by processor time: python -m tests.perf.photos
[--model sd15] [--size 512] [--steps 10] [--repeats 3].

plain     a run of the new prompt alone, with guidance: two rows of the network a step
invert    the exact inversion, without guidance: one row
pair      the retraced picture and its edit by prompt-to-prompt in one batch: four rows, and again
          for every further edit of the picture
keep      the same inversion, in which what the edit takes of the picture is kept: one row
again     an edit that takes it from what was kept: two rows; ``attncontrol edit --photo`` does so

Ratios are to plain, of turns in which all follow each other in one process: medians and ends. One
edit costs invert + pair, or keep + again; a second one pair, or again. All pictures are decoded.
Models are those that are bundled ("sd"), or a randomly initialised UNet of the size of SD 1.5's;
pictures have ``--size`` pixels to each side.
Last come the bytes of a file with the trajectory of one picture of 512 x 512 pixels in 50 steps,
latents of 4 x 64 x 64, exact, and by null texts of 77 x 768.
"""

import argparse
import os
import statistics
import time
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from PIL import Image

from attncontrol import edit, invert, keep, retrace, sprites
from attncontrol.edits import LocalBlend, Replace
from attncontrol.inversion import NullText
from attncontrol.sprites.scenes import Thing, compose, render
from attncontrol.verbs.places import On
from tests.perf.sd15 import components

PROMPT, CHANGED = "a red cat and a blue frog", "a green cat and a blue frog"
ONE_EDIT, SECOND = (("invert", "pair"), ("keep", "again")), (("pair",), ("again",))


def pipeline(model: str):
    if model == "sd15":
        pipe = StableDiffusionPipeline(**components(), requires_safety_checker=False)
    else:
        pipe = DiffusionPipeline.from_pretrained(sprites.path(model))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture():
    scene = compose((Thing("cat", "red"), Thing("frog", "blue")), np.random.default_rng(4))
    return Image.fromarray(render(scene)[0])


def seconds(function):
    began = time.process_time()
    made = function()
    return time.process_time() - began, made


def turn(pipe, photo, steps: int, side: int):
    """Seconds of every variant, once after the other."""
    call = {"num_inference_steps": steps, "guidance_scale": 2.0, "output_type": "pt"}
    call |= {"height": side, "width": side}
    own, found = {"num_inference_steps": steps, "size": (side, side)}, {}

    def edits(source):
        return [On(LocalBlend(source=source)), On(Replace(source=source))]

    def pair():
        with retrace(pipe, trajectory), edit(pipe, edits(0)):
            return pipe([PROMPT, CHANGED], **call).images

    def kept():
        with keep(pipe, edits(0)) as source:
            return source, invert(pipe, photo, PROMPT, **own)

    def again():
        with retrace(pipe, way, images=()), edit(pipe, edits(source)):
            return pipe(CHANGED, **call).images

    found["plain"], _ = seconds(lambda: pipe(CHANGED, **call))
    found["invert"], trajectory = seconds(lambda: invert(pipe, photo, PROMPT, **own))
    found["pair"], both = seconds(pair)
    found["keep"], (source, way) = seconds(kept)
    found["again"], one = seconds(again)
    differs = (both[1] - one[0]).abs().max() / both[1].abs().max()
    print(found, f"the edits differ by {differs:.1e}, {source.nbytes / 2**20:.0f} MiB", flush=True)
    return found


def told(turns, parts):
    ratios = [sum(found[part] for part in parts) / found["plain"] for found in turns]
    median, ends = statistics.median(ratios), (min(ratios), max(ratios))
    return f"{' + '.join(parts)}: {median:.2f} ({ends[0]:.2f} to {ends[1]:.2f}) plain runs"


def sizes():
    """Bytes on disk by method."""
    rng, pipe = np.random.default_rng(0), pipeline("sd")
    exact = replace(
        invert(pipe, picture(), PROMPT, num_inference_steps=50),
        latents=torch.randn(1, 51, 4, 64, 64),
        shown=torch.from_numpy(rng.integers(0, 256, (1, 512, 512, 3), np.uint8)),
    )
    course = replace(exact.course, method="NullText", settings=vars(NullText(2.0)))
    null = replace(exact, course=course, embeddings=torch.randn(1, 50, 77, 768).half())
    with TemporaryDirectory() as folder:
        for name, trajectory in (("exact", exact), ("null-text", null)):
            file = trajectory.save(f"{folder}/{name}.safetensors")
            print(f"{name}: {os.path.getsize(file) / 2**20:.2f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sd", choices=("sd", "sd3", "pixart", "sd15"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    pipe, photo = pipeline(args.model), picture()
    turn(pipe, photo, min(args.steps, 2), args.size)  # warm
    turns = [turn(pipe, photo, args.steps, args.size) for _ in range(args.repeats)]
    for title, ways in (("one edit", ONE_EDIT), ("a second one", SECOND)):
        for parts in ways:
            print(f"{title}, {told(turns, parts)}")
    sizes()


if __name__ == "__main__":
    main()
