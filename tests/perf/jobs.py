"""Jobs of the bundled model: pictures a minute, memory of a long one, and differences between
batch sizes: python -m tests.perf.jobs check|throughput|memory|engines [--steps 2] [--pictures 48]
[--threads 1] [--runs 3].

check        seconds of the processor that ``batch --check`` takes for 10,000 lines, as a command
throughput   batch 8 against one by one, plain and auto, each after a first call of its kind, in
             turns: pictures a minute of the processor by which they are made on one thread, on more
             by the clock, ratios of the runs; and the largest difference of latents and of pixels
             between the two sizes
memory       one process makes 2,000 pictures; its resident size after the first 100 and at the end
engines      two processes against two bare ones with a half each, and Ray if it is installed; on
             a machine that others use too, with RAY_worker_niceness=0, or its actors wait for them
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
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


def timed(pipe, rows, size: int, clock=time.perf_counter) -> tuple[float, list]:
    """Pictures a minute, and they."""
    began, made = clock(), []
    for start in range(0, len(rows), size):
        made += paint(pipe, rows[start : start + size])
    return 60 * len(rows) / (clock() - began), [each.image for each in made]


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


def check(lines: int = 10_000) -> None:
    """With seeds, words and methods that differ; a second run has the files of the first in the
    cache."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "job.jsonl"
        file.write_text(
            "\n".join(
                json.dumps({"prompt": f"{PROMPTS[k % 2]} {k // 7}", "seed": k,
                            "method": ("plain", "conform")[k % 2]})
                for k in range(lines)
            )
        )  # fmt: skip
        command = [sys.executable, "-m", "attncontrol", "batch", str(file), "--check", "--json"]
        for _ in range(3):
            before = os.times()
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            after = os.times()
            seconds = sum(after[2:4]) - sum(before[2:4])
            print(f"{json.loads(told)['pictures']} lines: {seconds:.2f} s of the processor")


def throughput(pictures: int, steps: int, threads: int, runs: int) -> None:
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    pipe = opened("sprites", "cpu", "float32")
    for method in ("plain", "auto"):
        rows = items(pictures, steps, method)
        timed(pipe, rows[:BATCH], BATCH)
        ones, manies = [], []
        for _ in range(runs):
            one, alone = timed(pipe, rows, 1, clock)
            many, together = timed(pipe, rows, BATCH, clock)
            ones.append(one)
            manies.append(many)
        ratios = [many / one for one, many in zip(ones, manies, strict=True)]
        one, many = median(ones), median(manies)
        pixels = max(
            int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())
            for a, b in zip(alone, together, strict=True)
        )
        few = rows[:BATCH]
        apart = float((latents(pipe, few, 1) - latents(pipe, few, BATCH)).abs().max())
        print(
            f"{method}: {one:.0f} pictures a minute one by one, {many:.0f} in batches of {BATCH}: "
            f"{median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f} in {runs} runs, "
            f"{threads} threads); latents differ by at most {apart:.1e}, pixels by {pixels}",
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
    parser.add_argument("what", choices=("check", "throughput", "memory", "engines", "bare"))
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--which", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    pictures = given.pictures or {"memory": 2000}.get(given.what, 48)
    if given.what == "check":
        check()
    elif given.what == "throughput":
        throughput(pictures, given.steps, given.threads, given.runs)
    elif given.what == "bare":
        bare(given.which, pictures, given.steps)
    else:
        globals()[given.what](pictures, given.steps)


if __name__ == "__main__":
    main()
