"""Measures the bundled models: ``python -m attncontrol.testbed.bench {single,pairs,point} ...``; prints JSON.

single   how often a single-subject prompt shows its noun, and its noun in its colour
pairs    how often both subjects of the 276 Attend-and-Excite prompts are shown, plain and guided, from the same seeds
point    how often the peak of a word's map lies inside that object, on noised true scenes, per site and timestep
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from torch import Tensor

from attncontrol.batch import METHODS, load
from attncontrol.descent import Descent
from attncontrol.families import family_of
from attncontrol.maps import summed
from attncontrol.processors import AttentionCall, tap
from attncontrol.sites import Where
from attncontrol.steer import steer
from attncontrol.testbed.scenes import COLORS, NOUNS, SIZE, Scene, Thing, caption, render, sample
from attncontrol.testbed.scorer import find, shows
from attncontrol.tokens import find as find_word

GROUPS = ("animal-animal", "animal-object", "object-object")


def benchmark_prompts() -> dict[str, list[str]]:
    """The 66 + 144 + 66 prompts of Attend-and-Excite (arXiv 2301.13826), by group."""
    text = files("attncontrol.testbed").joinpath("prompts.txt").read_text("utf-8")
    blocks = [[line for line in block.splitlines() if not line.startswith("#")] for block in text.strip().split("\n\n")]
    return dict(zip(GROUPS, blocks, strict=True))


def things_of(prompt: str) -> tuple[Thing, ...]:
    """Nouns of the world in a prompt, each with the colour word before it."""
    words = prompt.replace(",", " ").split()
    return tuple(Thing(word, words[i - 1] if words[i - 1] in COLORS else None) for i, word in enumerate(words) if word in NOUNS)


def make(
    pipe: Any, jobs: Sequence[tuple[str, int]], *, method: str = "plain", batch: int = 16, steps: int = 25,
    where: Where | None = None, descent: Descent | None = None, **call: Any,
) -> tuple[list[Image.Image], float]:  # fmt: skip
    """Pictures of (prompt, seed) jobs and the seconds they took. A picture does not depend on its batch."""
    pictures: list[Image.Image] = []
    began = time.perf_counter()
    for start in track(range(0, len(jobs), batch), description=method):
        prompts, seeds = zip(*jobs[start : start + batch], strict=True)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        arguments = {"prompt": list(prompts), "generator": generators, "num_inference_steps": steps} | call
        if method == "plain":
            pictures += pipe(**arguments).images
            continue
        words = {prompt: [thing.noun for thing in things_of(prompt)] for prompt in prompts}
        with steer(pipe, METHODS[method](words), where=where, descent=descent):
            pictures += pipe(**arguments).images
    return pictures, time.perf_counter() - began


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a rate."""
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def gain(plain: np.ndarray, guided: np.ndarray) -> dict[str, Any]:
    """Rates of two [prompt, seed] tables of hits and their difference, with 95 % bootstrap intervals over prompts."""
    rng = np.random.default_rng(0)
    pick = rng.integers(len(plain), size=(10_000, len(plain)))
    difference = (guided.mean(1) - plain.mean(1))[pick].mean(1)
    rates = {"plain": plain.mean(), "guided": guided.mean(), "gain": (guided.mean() - plain.mean())}
    intervals = {f"{name}_interval": wilson(int(t.sum()), t.size) for name, t in (("plain", plain), ("guided", guided))}
    intervals["gain_interval"] = tuple(np.quantile(difference, (0.025, 0.975)))
    return {
        "n": int(plain.size),
        **{k: round(float(v), 4) for k, v in rates.items()},
        **{k: [round(float(x), 4) for x in v] for k, v in intervals.items()},
    }


def single(pipe: Any, seeds: Iterable[int], **options: Any) -> dict[str, Any]:
    """Every noun plain, and every noun in every colour (one seed each)."""
    plain = [((Thing(noun),), seed) for noun in NOUNS for seed in seeds]
    colored = [((Thing(noun, color),), i) for i, (noun, color) in enumerate(itertools.product(NOUNS, COLORS))]
    result = {}
    for name, jobs in (("noun", plain), ("noun_and_color", colored)):
        pictures, _ = make(pipe, [(caption(things)[0], seed) for things, seed in jobs], **options)
        hits = [shows(findings, things[0]) for findings, (things, _) in zip(find(pictures), jobs, strict=True)]
        result[name] = {
            "n": len(hits),
            "rate": round(float(np.mean(hits)), 4),
            "interval": [round(x, 4) for x in wilson(sum(hits), len(hits))],
        }
    return result


def pairs(
    pipe: Any, method: str, seeds: Sequence[int], *, every: int = 1, where: Where | None, descent: Descent | None, **options: Any
) -> dict[str, Any]:
    """Both-present rates, plain and guided, per group and together; ``every`` thins the prompts. Bound: colours right as well."""
    groups = {name: prompts[::every] for name, prompts in benchmark_prompts().items()}
    jobs = [(prompt, seed) for prompts in groups.values() for prompt in prompts for seed in seeds]
    tables: dict[str, dict[str, np.ndarray]] = {}
    seconds = {}
    for name in ("plain", method):
        guidance: dict[str, Any] = {} if name == "plain" else {"where": where, "descent": descent}
        pictures, seconds[name] = make(pipe, jobs, method=name, **guidance, **options)
        found = find(pictures)
        present = [all(shows(f, Thing(t.noun)) for t in things_of(p)) for f, (p, _) in zip(found, jobs, strict=True)]
        bound = [all(shows(f, t) for t in things_of(p)) for f, (p, _) in zip(found, jobs, strict=True)]
        tables[name] = {k: np.array(v, float).reshape(-1, len(seeds)) for k, v in (("present", present), ("bound", bound))}
    result: dict[str, Any] = {
        "method": method,
        "seeds": list(seeds),
        "time_ratio": round(seconds[method] / seconds["plain"], 3),
        "seconds": seconds,
    }
    for measure in ("present", "bound"):
        first, tables_of = 0, (tables["plain"][measure], tables[method][measure])
        result[measure] = {"all": gain(*tables_of)}
        for name, prompts in groups.items():
            rows = slice(first, first + len(prompts))
            result[measure][name] = gain(*(table[rows] for table in tables_of))
            first += len(prompts)
    return result


@torch.no_grad()
def site_maps(
    pipe: Any, pictures: Tensor, prompts: Sequence[str], words: Sequence[Sequence[str]], timestep: int, seed: int
) -> Mapping[str, list[Tensor]]:
    """For every cross-attention site the head-mean maps [word height width] of every picture, noised to ``timestep``."""
    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    sites = {site.name: site for site in Where(kind="cross").select(family.sites(denoiser))}
    latents = pipe.vae.encode(pictures).latent_dist.mean * pipe.vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    noisy = pipe.scheduler.add_noise(latents, noise, torch.tensor([timestep]))
    context, _ = pipe.encode_prompt(list(prompts), "cpu", 1, False)
    spans = [tuple(find_word(family.tokenizer(pipe), p, w) for w in of) for p, of in zip(prompts, words, strict=True)]
    maps: dict[str, list[Tensor]] = {}

    def keep(call: AttentionCall) -> Tensor:
        mean = call.probabilities().mean(1).unflatten(1, call.site.grid(*noisy.shape[-2:]))
        maps[call.site.name] = [summed(m, s).permute(2, 0, 1) for m, s in zip(mean, spans, strict=True)]
        return call.run()

    with tap(denoiser, sites, keep):
        denoiser(noisy, timestep, context)
    return maps


def point(pipe: Any, *, scenes: int = 200, timesteps: Sequence[int] = (900, 700, 500, 300), seed: int = 7) -> dict[str, Any]:
    """Pointing accuracy of noun and colour words, per stride and per site, for each timestep; all sites together as "all"."""
    chosen: list[Scene] = []
    rng = np.random.default_rng((seed, 99))
    while len(chosen) < scenes:
        scene = sample(rng, failures=False)
        chosen += [scene] if len(scene.named) == 2 else []
    rendered = [render(scene) for scene in chosen]
    pictures = torch.from_numpy(np.stack([picture for picture, _ in rendered])).permute(0, 3, 1, 2).float() / 127.5 - 1
    words = [
        [thing.noun for thing in s.named] + [thing.color for thing in s.named if thing.color and _unique(s, thing)] for s in chosen
    ]
    strides = {site.name: site.stride for site in family_of(pipe).sites(pipe.unet)}
    result: dict[str, Any] = {}
    for timestep in timesteps:
        maps = site_maps(pipe, pictures, [s.caption for s in chosen], words, timestep, seed)
        groups = {
            "all": list(maps),
            **{f"stride {n}": [k for k in maps if strides[k] == n] for n in sorted(set(strides.values()))},
        }
        groups |= {name: [name] for name in maps}
        table: dict[str, Any] = {}
        for name, members in groups.items():
            hits: dict[str, list[bool]] = {"noun": [], "color": []}
            for i, (scene, (_, masks)) in enumerate(zip(chosen, rendered, strict=True)):
                mean = sum(F.interpolate(maps[m][i][None], (SIZE, SIZE), mode="bilinear")[0] for m in members)
                for k, word in enumerate(words[i]):
                    owner = next(j for j, t in enumerate(scene.named) if word in (t.noun, t.color))
                    peak = int(torch.as_tensor(mean)[k].argmax())
                    hits["noun" if k < 2 else "color"].append(bool(masks[owner].flatten()[peak]))
            table[name] = {kind: round(float(np.mean(of)), 4) for kind, of in hits.items()} | {"n": len(hits["noun"])}
        result[str(timestep)] = table
    return result


def _unique(scene: Scene, thing: Thing) -> bool:
    return sum(other.color == thing.color for other in scene.named) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=["single", "pairs", "point"])
    parser.add_argument("--model", default="sprites")
    parser.add_argument("--method", default="attend-and-excite")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--step-size", type=float)
    parser.add_argument("--guided", type=float, default=0.5)
    parser.add_argument("--max-refinements", type=int, default=20)
    args = parser.parse_args()
    pipe = load(args.model)
    pipe.set_progress_bar_config(disable=True)
    options = {"steps": args.steps, "guidance_scale": args.guidance}
    if args.measure == "single":
        result = single(pipe, range(args.seeds), **options)
    elif args.measure == "point":
        result = point(pipe)
    else:
        where = Where(kind="cross", stride=args.stride) if args.stride else None
        descent = Descent(step_size=args.step_size, guided=args.guided, max_refinements=args.max_refinements)
        result = pairs(pipe, args.method, range(args.seeds), every=args.every, where=where, descent=descent, **options)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
