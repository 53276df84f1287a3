"""A compiled FLUX of 4 + 4 blocks of width 512, 1,040 positions, float32, by inductor: python -m
tests.perf.compiled [--repeats 5].

plain      the pipeline alone
record     of the single-stream blocks, which run eagerly then, half of all
steer      a gradient in every step, down the maps of the same blocks

each of an uncompiled and of a compiled model (``compile_repeated_blocks``), in turns, in one
process after a first call that compiles; by processor time. At the end, how many graphs were
compiled after these first calls.
"""

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from diffusers import FluxTransformer2DModel
from torch._dynamo.utils import counters

from attncontrol import Descent, Where, record, steer
from attncontrol.losses import AttendAndExcite
from tests.kit.runs import run
from tests.kit.zoo import flux

HALF = Where(layers=("single_transformer_blocks",))
DESCENT = Descent(step_size=1.0, thresholds={}, guided=1.0)
CONTEXTS = {
    "plain": lambda _: nullcontext(),
    "record": lambda pipe: record(pipe, ["cat"], where=HALF),
    "steer": lambda pipe: steer(pipe, AttendAndExcite(["cat"]), where=HALF, descent=DESCENT),
}


def model(compiled: bool):
    pipe = flux().to(torch.float32)
    torch.manual_seed(0)
    pipe.transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=4, num_single_layers=4, attention_head_dim=64,
        num_attention_heads=8, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=(16, 24, 24),
    ).eval().requires_grad_(False)  # fmt: skip
    if compiled:
        pipe.transformer.compile_repeated_blocks()
    return pipe


def once(pipe, name: str) -> tuple[float, torch.Tensor]:
    began = time.process_time()
    with CONTEXTS[name](pipe):
        latents = run("flux", pipe, height=512, width=512)
    return time.process_time() - began, latents


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    pipes = {"eager": model(False), "compiled": model(True)}
    for name in CONTEXTS:
        (_, one), (_, other) = (once(pipe, name) for pipe in pipes.values())
        print(f"{name}: latents differ by {(one - other).abs().max():.1e} of {one.abs().max():.1f}")
    graphs = counters["stats"]["unique_graphs"]
    rows = {(kind, name): [] for name in CONTEXTS for kind in pipes}
    for _ in range(repeats):
        for (kind, name), found in rows.items():
            found.append(once(pipes[kind], name)[0])
    for name in CONTEXTS:
        eager, compiled = rows["eager", name], rows["compiled", name]
        ratios = sorted(b / a for a, b in zip(eager, compiled, strict=True))
        print(
            f"{name:7} eager {statistics.median(eager):6.2f} s, compiled "
            f"{statistics.median(compiled):6.2f} s, compiled / eager",
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    print(f"graphs compiled meanwhile: {counters['stats']['unique_graphs'] - graphs}")


if __name__ == "__main__":
    main()
