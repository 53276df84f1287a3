"""What the package costs beside a pipeline as it is: runs of one process in turns, by the time of
its processor."""

import argparse
import statistics
import time
import warnings
from contextlib import nullcontext

import torch
from diffusers import DiffusionPipeline

from attncontrol import Descent, record, sprites, steer
from attncontrol.losses import AttendAndExcite

PROMPT = "a red frog and a blue clock"
WORDS = ["frog", "clock"]


def steered(guided: float):
    descent = Descent(step_size=1.0, thresholds={}, guided=guided)
    return lambda pipe: steer(pipe, AttendAndExcite(WORDS), descent=descent)


CONTEXTS = {
    "plain": lambda _: nullcontext(),
    "record": lambda pipe: record(pipe, WORDS),
    "steer": steered(1.0),
    "early": steered(0.25),
}
"""``early`` has gradients in the first quarter of the steps."""


def bundled(name: str):
    pipe = DiffusionPipeline.from_pretrained(sprites.path(name))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def once(pipe, model: str, context: str, steps: int) -> float:
    """Seconds of the processor."""
    call = sprites.call(model) | {"num_inference_steps": steps, "output_type": "latent"}
    began = time.process_time()
    with warnings.catch_warnings(action="ignore"), CONTEXTS[context](pipe):
        pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call)
    return time.process_time() - began


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(runs, contexts, repeats: int) -> None:
    """``runs`` are functions of a context that return seconds, by name; the first is what the
    plain runs of the others are compared with. The first round of each is not counted."""
    seconds = {(name, context): [] for name in runs for context in contexts}
    for nth in range(repeats + 1):
        for (name, context), found in seconds.items():
            took = runs[name](context)
            if nth:
                found.append(took)
    first = next(iter(runs))
    others = [context for context in contexts if context != "plain"]
    print("| | plain, s | to the first | " + " | ".join(f"{c} / plain" for c in others) + " |")
    print("|---" * (3 + len(others)) + "|")
    for name in runs:
        plain = seconds[name, "plain"]
        cells = [f"{statistics.median(plain):.2f}", spread(_over(plain, seconds[first, "plain"]))]
        cells += [spread(_over(seconds[name, context], plain)) for context in others]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _over(these: list[float], those: list[float]) -> list[float]:
    return [one / other for one, other in zip(these, those, strict=True)]


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    return parsed
