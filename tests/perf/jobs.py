"""Jobs of the bundled model: pictures a minute, memory of a long one, and differences between
batch sizes: python -m tests.perf.jobs throughput|memory|engines [--steps 2] [--pictures 48].

throughput   batch 8 against one by one, plain and auto, each after a first call of its kind; and
             the largest difference of latents and of pixels between the two sizes
memory       one process makes 2,000 pictures; its resident size after the first 100 and at the end
engines      two processes against two bare ones with a half each, and Ray if it is installed; on
             a machine that others use too, with RAY_worker_niceness=0, or its actors wait for them
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from attncontrol.batch.pipelines import opened
from attncontrol.jobs.engine import run
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.pictures import paint

PROMPTS = ("a red cat and a blue frog", "a green tree and a yellow car", "a dog", "a white cat")
BATCH = 8


def items(pictures: int, steps: int, method: str = "plain") -> list[Item]:
    return [
        Item(prompt=PROMPTS[k % len(PROMPTS)], seed=k, method=method, steps=steps)
        for k in range(pictures)
    ]


def timed(pipe, rows, size: int) -> tuple[float, list]:
    """Pictures a minute, and they."""
    began, made = time.perf_counter(), []
    for start in range(0, len(rows), size):
        made += paint(pipe, rows[start : start + size])
    return 60 * len(rows) / (time.perf_counter() - began), [each.image for each in made]


def latents(pipe, rows, size: int) -> torch.Tensor:
    """Instead of pictures."""
    decode, found = pipe.vae.decode, []

    def seen(z, *args, **kwargs):
        found.append(z.clone())
        return decode(z, *args, **kwargs)

    pipe.vae.decode = seen
    try:
        timed(pipe, rows, size)
    finally:
        pipe.vae.decode = decode
    return torch.cat(found)


def throughput(pictures: int, steps: int) -> None:
    pipe = opened("sprites", "cpu", "float32")
    for method in ("plain", "auto"):
        rows = items(pictures, steps, method)
        timed(pipe, rows[:BATCH], BATCH)
        one, alone = timed(pipe, rows, 1)
        many, together = timed(pipe, rows, BATCH)
        again = timed(pipe, rows, 1)[0]
        one = (one + again) / 2  # another process may have come or gone
        pixels = max(
            int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())
            for a, b in zip(alone, together, strict=True)
        )
        few = rows[:BATCH]
        apart = float((latents(pipe, few, 1) - latents(pipe, few, BATCH)).abs().max())
        print(
            f"{method}: {one:.0f} pictures a minute one by one, {many:.0f} in batches of {BATCH}: "
            f"{many / one:.2f} times; latents differ by at most {apart:.1e}, pixels by {pixels}",
            flush=True,
        )


def resident() -> float:
    """MiB."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def memory(pictures: int, steps: int) -> None:
    sizes = {}

    def progress(done: int, total: int) -> None:
        sizes[done] = resident()
        if done % 200 < BATCH:
            print(f"{done} of {total}: {sizes[done]:.0f} MiB", flush=True)

    with TemporaryDirectory() as folder:
        run(Job.of(items(pictures, steps)), folder, batch=BATCH, progress=progress)
    after = next(size for done, size in sizes.items() if done >= min(100, pictures // 2))
    growth = max(size for done, size in sizes.items() if done >= 100) - after
    print(f"{pictures} pictures: {growth:.0f} MiB more than after the first 100 at most")


def bare(which: int, pictures: int, steps: int) -> None:
    """Every second picture, kept nowhere; the seconds after a first batch."""
    pipe, rows = opened("sprites", "cpu", "float32"), items(pictures, steps)[which::2]
    timed(pipe, rows[:BATCH], BATCH)
    began = time.perf_counter()
    timed(pipe, rows, BATCH)
    print(time.perf_counter() - began)


def engines(pictures: int, steps: int) -> None:
    command = [sys.executable, "-m", "tests.perf.jobs", "bare", "--steps", str(steps)]
    both = [
        subprocess.Popen(
            [*command, "--pictures", str(pictures), "--which", str(k)],
            stdout=subprocess.PIPE, text=True,
        )
        for k in (0, 1)
    ]  # fmt: skip
    seconds = max(float(each.communicate()[0]) for each in both)
    print(f"two bare processes: {60 * pictures / seconds:.0f} pictures a minute", flush=True)
    for engine in ("local", "ray"):
        try:
            speed = of_engine(engine, pictures, steps)
        except ImportError as error:
            print(error)
        else:
            print(f"{engine}, two workers: {speed:.0f} pictures a minute", flush=True)


def of_engine(engine: str, pictures: int, steps: int) -> float:
    """Pictures a minute from the moment in which both workers have made a batch."""
    moments: list[tuple[float, int]] = []
    job = Job.of(items(pictures + 2 * BATCH, steps))

    def progress(done: int, _: int) -> None:
        moments.append((time.perf_counter(), done))

    with TemporaryDirectory() as folder:
        run(job, folder, batch=BATCH, workers=2, engine=engine, progress=progress)
    began = next(moment for moment in moments if moment[1] >= 2 * BATCH)
    return 60 * (moments[-1][1] - began[1]) / (moments[-1][0] - began[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("throughput", "memory", "engines", "bare"))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--which", type=int, default=0)
    given = parser.parse_args()
    pictures = given.pictures or {"memory": 2000}.get(given.what, 48)
    if given.what == "bare":
        bare(given.which, pictures, given.steps)
    else:
        globals()[given.what](pictures, given.steps)


if __name__ == "__main__":
    main()
