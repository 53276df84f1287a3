"""What a search for heads costs on a bundled model: python -m tests.perf.heads [--model sprites-sd3
--steps 6 --seeds 2].

exact      search_heads: heads share batches, those already chosen are not tried again
naive      one pipeline call per picture, every remaining head set made anew, as in Algorithm 1 of
           HeadHunter (arXiv 2506.10978), with the weakened pass computed in full, as PAG pipelines
           do
batch 1    the same, but blocks before the first change computed once, as ``perturb`` does: against
           it exact gains by batching alone
halving    search_heads(halving=True)

All weaken heads of the middle and the first upper block of the UNet, of three late blocks of a
transformer (12). The exact search must choose the heads of the naive one. Time of the processor
does not count other work on the machine.

--replay scores.jsonl: how often halving would have chosen the heads of a finished exact search,
from its cache, over 1,000 orders of its jobs.
"""

import argparse
import time
from contextlib import nullcontext
from functools import partial
from math import ceil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from attncontrol import Where
from attncontrol.batch.head_search import _HALVING, search_heads
from attncontrol.batch.options import DTYPES, guided, load_pipeline
from attncontrol.batch.results import read_lines
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.sprites.models import call as call_of
from attncontrol.sprites.objectives import quality, shape
from attncontrol.verbs.perturb import perturb

WHERE = {
    "sprites": Where(kind="self", layers=("mid_block", "up_blocks.0")),
    "sprites-sd3": Where(kind="joint", layers=tuple(f"transformer_blocks.{i}" for i in (3, 4, 5))),
    "sprites-flux": Where(
        kind="joint", layers=tuple(f"single_transformer_blocks.{i}" for i in (3, 4, 5))
    ),
}
PROMPTS = ["a frog", "a red car", "a lion", "a blue clock"]
SCALE = 3.0


def objective(pictures, prompts):
    """Both are continuous, and their sum has no ties where no sprite is found yet in some
    pictures."""
    return [
        a + b for a, b in zip(quality(pictures, prompts), shape(pictures, prompts), strict=True)
    ]


def naive(pipe, pool, jobs, rounds, top_k, call):
    chosen, scores = [], []
    for _ in range(rounds):
        means = {}
        for head in (head for head in pool if head not in chosen):
            total = 0.0
            for prompt, seed in jobs:
                with perturb(pipe, SoftIdentity(), scale=SCALE, heads=[*chosen, head]):
                    picture = pipe(
                        prompt, generator=torch.Generator().manual_seed(seed), **call
                    ).images
                total += objective(picture, [prompt])[0]
            means[head] = total / len(jobs)
        scores.append(means)
        chosen += sorted(means, key=lambda head: -means[head])[:top_k]
    return chosen, scores


def timed(work):
    began, wall = time.process_time(), time.perf_counter()
    found = work()
    return found, time.process_time() - began, time.perf_counter() - wall


def replay(file, top_k, orders=1000):
    """Share of the pictures that halving makes, and mean share of the first ``top_k`` heads that
    are those of the exact search."""
    scores = {}
    for key, prompt, seed, score in read_lines(file):
        if key and " " not in key:  # the first round
            scores.setdefault(key, {})[prompt, seed] = score
    table = np.array([list(of_head.values()) for of_head in scores.values()])  # [head job]
    exact = set(np.argsort(-table.mean(1))[:top_k])
    rng, agreed = np.random.default_rng(0), []
    for _ in range(orders):
        shuffled, alive, made, done = (
            table[:, rng.permutation(table.shape[1])],
            np.arange(len(table)),
            0,
            0,
        )
        for share, left in _HALVING:
            jobs = max(1, round(share * table.shape[1]))
            made, done = made + len(alive) * (jobs - done), jobs
            alive = alive[np.argsort(-shuffled[alive, :jobs].mean(1), kind="stable")]
            alive = alive[: max(top_k, ceil(left * len(alive)))]
        agreed.append(len(exact & set(alive[:top_k])) / top_k)
    return made / table.size, np.mean(agreed)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("steps", 6),
        ("prompts", 1),
        ("seeds", 2),
        ("rounds", 2),
        ("top-k", 2),
        ("batch", 8),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", default="sprites", choices=list(WHERE))
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--replay", type=Path)
    args = parser.parse_args()
    if args.replay:
        for top_k in range(1, 5):
            print(
                "best {}: halving makes {:.2f} of the pictures and chooses {:.2f}".format(
                    top_k, *replay(args.replay, top_k)
                )
            )
        return
    pipe = load_pipeline(args.model, dtype=args.dtype)
    pipe.set_progress_bar_config(disable=True)
    call = guided(call_of(args.model) | {"num_inference_steps": args.steps}, 1.0)
    jobs = [(prompt, seed) for prompt in PROMPTS[: args.prompts] for seed in range(args.seeds)]
    options = {
        "edit": SoftIdentity(),
        "scale": SCALE,
        "where": WHERE[args.model],
        "rounds": args.rounds,
        "top_k": args.top_k,
    }
    pipe("a cat", **call)  # what the first call alone pays

    exact, seconds, wall = timed(
        lambda: search_heads(pipe, jobs, objective, batch=args.batch, **options, **call)
    )
    pool = list(exact.rounds[0].scores)
    single = partial(naive, pipe, pool, jobs, args.rounds, args.top_k, call)
    with patch.object(Prefix, "again", lambda *_: nullcontext()):
        (heads, scores), naive_seconds, naive_wall = timed(single)
    _, single_seconds, single_wall = timed(single)
    halved, halved_seconds, _ = timed(
        lambda: search_heads(
            pipe, jobs, objective, batch=args.batch, halving=True, **options, **call
        )
    )

    pictures = sum(1 + len(each.scores) for each in exact.rounds) * len(jobs)
    print(
        f"{len(pool)} heads, {len(jobs)} jobs, {args.rounds} rounds of {args.top_k}, "
        f"{args.steps} steps: {pictures} pictures"
    )
    print(f"exact   {seconds:7.1f} s of the processor, {wall:7.1f} s of the clock")
    print(f"naive   {naive_seconds:7.1f} s of the processor, {naive_wall:7.1f} s of the clock")
    print(f"batch 1 {single_seconds:7.1f} s of the processor, {single_wall:7.1f} s of the clock")
    print(
        f"exact / naive = {seconds / naive_seconds:.3f} of the processor, "
        f"{wall / naive_wall:.3f} of the clock"
    )
    print(
        f"exact / batch 1 = {seconds / single_seconds:.3f} of the processor, "
        f"{wall / single_wall:.3f} of the clock"
    )
    largest = max(
        abs(each.scores[head] - means[head])
        for each, means in zip(exact.rounds, scores, strict=True)
        for head in means
        if head in each.scores
    )
    print(f"same heads: {list(exact.heads) == heads}")
    print(f"largest difference of a mean score {largest:.1e}")
    shared = len(set(halved.heads) & set(exact.heads))
    print(
        f"halving / exact = {halved_seconds / seconds:.3f} of the processor; "
        f"{shared} of {len(exact.heads)} heads as exact"
    )


if __name__ == "__main__":
    main()
