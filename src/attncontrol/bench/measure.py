"""Measures the bundled models: ``python -m attncontrol.bench.measure {single,pairs,point,read}
...``; prints JSON.

single   how often a single-subject prompt shows its noun, and its noun in its colour
pairs    how often both subjects of the 276 Attend-and-Excite prompts are shown, plain and guided,
         from the same seeds
point    how often the peak of a word's map lies inside that object, on noised true scenes, per site
         and timestep
read     how well ways of reading the attention find the objects, on noised true scenes
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from attncontrol import losses
from attncontrol.analysis import evaluation
from attncontrol.analysis.concept_attention import concepts_of_picture
from attncontrol.analysis.grounding import Example, score_sites
from attncontrol.attention.sites import TEXT, Where
from attncontrol.batch.options import guided, load, parse_seeds
from attncontrol.objectives.descent import Descent
from attncontrol.running.session import attach
from attncontrol.sprites.models import CALL
from attncontrol.sprites.scenes import COLORS, NOUNS, SIZE, Scene, Thing, caption, render, sample
from attncontrol.sprites.scorer import find, shows
from attncontrol.verbs.steer import steer

_STDERR = Console(stderr=True)  # standard output carries the JSON
BACKGROUND = (
    "a",
)  # named beside the objects for ConceptAttention: these encoders have read no word for what lies behind
GROUPS = ("animal-animal", "animal-object", "object-object")


def benchmark_prompts() -> dict[str, list[str]]:
    """The 66 + 144 + 66 prompts of Attend-and-Excite (arXiv 2301.13826), by group."""
    text = files("attncontrol.sprites").joinpath("prompts.txt").read_text("utf-8")
    blocks = [
        [line for line in block.splitlines() if not line.startswith("#")]
        for block in text.strip().split("\n\n")
    ]
    return dict(zip(GROUPS, blocks, strict=True))


def things_of(prompt: str) -> tuple[Thing, ...]:
    """Nouns of the world in a prompt, each with the colour word before it."""
    words = prompt.replace(",", " ").split()
    return tuple(
        Thing(word, words[i - 1] if words[i - 1] in COLORS else None)
        for i, word in enumerate(words)
        if word in NOUNS
    )


def groups_of(prompts: Iterable[str]) -> dict[str, list[list[str]]]:
    """The subjects of every prompt: noun, or colour and noun."""
    return {
        prompt: [[word for word in (t.color, t.noun) if word] for t in things_of(prompt)]
        for prompt in prompts
    }


def make(
    pipe: Any, jobs: Sequence[tuple[str, int]], *, method: str = "plain", batch: int = 16,
    where: Where | None = None, descent: Descent | None = None, **call: Any,
) -> tuple[list[Image.Image], float]:  # fmt: skip
    """Pictures of (prompt, seed) jobs and the seconds they took. A picture does not depend on its
    batch."""
    pictures: list[Image.Image] = []
    began = time.perf_counter()
    for start in track(range(0, len(jobs), batch), description=method, console=_STDERR):
        prompts, seeds = zip(*jobs[start : start + batch], strict=True)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        arguments = {"prompt": list(prompts), "generator": generators} | call
        if method == "plain":
            pictures += pipe(**arguments).images
            continue
        with steer(pipe, losses.method(method, groups_of(prompts)), where=where, descent=descent):
            pictures += pipe(**arguments).images
    return pictures, time.perf_counter() - began


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a rate."""
    z, p = 1.959964, hits / n
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def gain(plain: np.ndarray, guided: np.ndarray) -> dict[str, Any]:
    """Rates of two [prompt, seed] tables of hits and their difference, with 95 % bootstrap
    intervals over prompts."""
    rng = np.random.default_rng(0)
    pick = rng.integers(len(plain), size=(10_000, len(plain)))
    difference = (guided.mean(1) - plain.mean(1))[pick].mean(1)
    rates = {"plain": plain.mean(), "guided": guided.mean(), "gain": (guided.mean() - plain.mean())}
    intervals = {
        f"{name}_interval": wilson(int(t.sum()), t.size)
        for name, t in (("plain", plain), ("guided", guided))
    }
    intervals["gain_interval"] = tuple(np.quantile(difference, (0.025, 0.975)))
    return {
        "n": int(plain.size),
        **{k: round(float(v), 4) for k, v in rates.items()},
        **{k: [round(float(x), 4) for x in v] for k, v in intervals.items()},
    }


def single(pipe: Any, seeds: Iterable[int], **options: Any) -> dict[str, Any]:
    """Every noun plain, and every noun in every colour (one seed each)."""
    plain = [((Thing(noun),), seed) for noun in NOUNS for seed in seeds]
    colored = [
        ((Thing(noun, color),), i)
        for i, (noun, color) in enumerate(itertools.product(NOUNS, COLORS))
    ]
    result = {}
    for name, jobs in (("noun", plain), ("noun_and_color", colored)):
        pictures, _ = make(pipe, [(caption(things)[0], seed) for things, seed in jobs], **options)
        hits = [
            shows(findings, things[0])
            for findings, (things, _) in zip(find(pictures), jobs, strict=True)
        ]
        result[name] = {
            "n": len(hits),
            "rate": round(float(np.mean(hits)), 4),
            "interval": [round(x, 4) for x in wilson(sum(hits), len(hits))],
        }
    return result


def pairs(
    pipe: Any,
    method: str,
    seeds: Sequence[int],
    *,
    every: int = 1,
    where: Where | None,
    descent: Descent | None,
    **options: Any,
) -> dict[str, Any]:
    """Both-present rates, plain and guided, per group and together; ``every`` thins the prompts.
    Bound: colours right as well."""
    groups = {name: prompts[::every] for name, prompts in benchmark_prompts().items()}
    jobs = [(prompt, seed) for prompts in groups.values() for prompt in prompts for seed in seeds]
    tables: dict[str, dict[str, np.ndarray]] = {}
    seconds = {}
    for name in ("plain", method):
        guidance: dict[str, Any] = {} if name == "plain" else {"where": where, "descent": descent}
        pictures, seconds[name] = make(pipe, jobs, method=name, **guidance, **options)
        found = find(pictures)
        present = [
            all(shows(f, Thing(t.noun)) for t in things_of(p))
            for f, (p, _) in zip(found, jobs, strict=True)
        ]
        bound = [
            all(shows(f, t) for t in things_of(p)) for f, (p, _) in zip(found, jobs, strict=True)
        ]
        tables[name] = {
            k: np.array(v, float).reshape(-1, len(seeds))
            for k, v in (("present", present), ("bound", bound))
        }
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


def examples(count: int, *, colors: bool = False, side: int = SIZE, seed: int = 7) -> list[Example]:
    """True scenes of two objects with the exact masks of their nouns, or of the colour words that
    only one of them has.

    ``side`` is that of the pictures, in pixels.
    """
    rng = np.random.default_rng((seed, 99))
    chosen: list[Example] = []
    while len(chosen) < count:
        scene = sample(rng, failures=False)
        if len(scene.named) != 2:
            continue
        picture, masks = (_scaled(array, side) for array in render(scene))
        if colors:
            named = {
                t.color: m
                for t, m in zip(scene.named, masks, strict=True)
                if t.color and _unique(scene, t)
            }
        else:
            named = {t.noun: m for t, m in zip(scene.named, masks, strict=True)}
        chosen += [Example(picture, scene.caption, named)] if named else []
    return chosen


def _scaled(array: np.ndarray, side: int) -> np.ndarray:
    """Picture (height, width, 3) or masks (objects, height, width) of ``side`` pixels."""
    if side == SIZE:
        return array
    images = array if array.dtype == bool else array[None]
    scaled = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
            for image in images
        ]
    )
    return scaled.astype(bool) if array.dtype == bool else scaled[0]


def point(pipe: Any, *, scenes: int = 200, **call: Any) -> dict[str, list[dict[str, Any]]]:
    """Pointing accuracy and IoU of noun and colour words, per site and timestep; see
    ``analysis.grounding``."""
    return {
        name: [
            vars(score)
            for score in score_sites(pipe, examples(scenes, colors=name == "color"), **call)
        ]
        for name in ("noun", "color")
    }


def read(
    pipe: Any, *, scenes: int = 500, seed: int = 9, timestep: float = 300.0, **call: Any
) -> list[dict[str, Any]]:
    """Scores of nouns by every method; see ``analysis.evaluation``. ConceptAttention has the nouns
    and BACKGROUND as concepts."""
    run = attach(pipe)
    family, sites = run.family, tuple(run.sites.values())
    localising = TEXT if isinstance(family.steering, str) else family.steering(sites)[0]
    mean = evaluation.METHODS["mean"]
    methods = {
        **evaluation.METHODS,
        "mean of the layers that localise words": evaluation.of_layers(
            mean, [site.name for site in localising.select(sites)]
        ),
        "mean, propagated once, cut at its mean": evaluation.propagating(mean),
        "mean, propagated twice, cut 0.75 deviations above": evaluation.propagating(
            mean, times=2, cut=0.75
        ),
        "mean along the edges of the picture, cut 0.5 deviations above": evaluation.along(mean),
    }
    chosen = examples(scenes, seed=seed)
    looks: evaluation.Looks = {"image->text": {"keep": ("head",)}, "image->image": {}}
    found = evaluation.evaluate(pipe, chosen, methods, timesteps=(timestep,), looks=looks, **call)
    for i, example in enumerate(chosen if family.name in ("sd3", "flux") else []):
        concepts = (*example.masks, *BACKGROUND)
        of = concepts_of_picture(
            pipe, example.picture, example.prompt, concepts, timestep=timestep, seed=i, **call
        )
        maps = (of.maps if of.maps is not None else torch.empty(0))[0, : len(example.masks)]
        found += evaluation.scored(
            maps, example, method="ConceptAttention", timestep=timestep, picture=i
        )
    return [vars(row) for row in evaluation.summarise(found)]


def _unique(scene: Scene, thing: Thing) -> bool:
    return sum(other.color == thing.color for other in scene.named) == 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measure", choices=["single", "pairs", "point", "read"])
    parser.add_argument("--model", default="sprites")
    parser.add_argument("--method", default="attend-and-excite")
    parser.add_argument("--seeds", default="0-3")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=500, help="of read")
    parser.add_argument("--timestep", type=float, default=300.0, help="of read")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--layers", help="module paths or patterns, separated by commas")
    parser.add_argument("--step-size", type=float)
    parser.add_argument("--guided", type=float, default=0.5)
    parser.add_argument("--max-refinements", type=int, default=20)
    args = parser.parse_args()
    pipe = load(args.model)
    pipe.set_progress_bar_config(disable=True)
    options = guided(CALL.get(args.model, {}), args.guidance)
    seeds = parse_seeds(args.seeds)
    reading = {k: v for k, v in options.items() if k == "max_sequence_length"}
    result: Any
    if args.measure == "single":
        result = single(pipe, seeds, **options)
    elif args.measure == "point":
        result = point(pipe, timesteps=(900.0, 700.0, 500.0, 300.0), **reading)
    elif args.measure == "read":
        result = read(pipe, scenes=args.scenes, timestep=args.timestep, **reading)
    else:
        layers = tuple(args.layers.split(",")) if args.layers else ()
        where = (
            Where(kind=("cross", "joint"), stride=args.stride, layers=layers)
            if args.stride or layers
            else None
        )
        descent = Descent(
            step_size=args.step_size, guided=args.guided, max_refinements=args.max_refinements
        )
        result = pairs(
            pipe, args.method, seeds, every=args.every, where=where, descent=descent, **options
        )
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
