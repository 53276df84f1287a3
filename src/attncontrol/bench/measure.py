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
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from attncontrol import losses
from attncontrol.analysis import evaluation
from attncontrol.analysis.concept_attention import concepts_of_picture
from attncontrol.analysis.grounding import score_sites
from attncontrol.attention.sites import TEXT, Where
from attncontrol.batch.generate import called
from attncontrol.batch.options import guided, load_pipeline, parse_seeds
from attncontrol.bench.examples import examples
from attncontrol.bench.prompts import benchmark_prompts, groups_of, things_of
from attncontrol.bench.rates import gain, wilson
from attncontrol.objectives.descent import Descent
from attncontrol.running.session import attach
from attncontrol.sprites import models
from attncontrol.sprites.scenes import COLORS, NOUNS, Thing, caption
from attncontrol.sprites.scorer import detect, shows

_STDERR = Console(stderr=True)  # standard output carries the JSON

# named beside the objects for ConceptAttention: the encoders have read no word for what lies behind
BACKGROUND = ("a",)


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
        objective = None if method == "plain" else losses.method(method, groups_of(prompts))
        guidance: dict[str, Any] = {"objective": objective, "where": where, "descent": descent}
        pictures += called(pipe, prompts, seeds, **guidance, **call).images
    return pictures, time.perf_counter() - began


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
            shows(detections, things[0])
            for detections, (things, _) in zip(detect(pictures), jobs, strict=True)
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
    tables, seconds = {}, {}
    plain: dict[str, Any] = {}
    for name, guidance in (("plain", plain), (method, {"where": where, "descent": descent})):
        pictures, seconds[name] = make(pipe, jobs, method=name, **guidance, **options)
        tables[name] = _hits(pictures, [prompt for prompt, _ in jobs], len(seeds))
    result: dict[str, Any] = {
        "method": method,
        "seeds": list(seeds),
        "time_ratio": round(seconds[method] / seconds["plain"], 3),
        "seconds": seconds,
    }
    for measure in ("present", "bound"):
        first, pair = 0, (tables["plain"][measure], tables[method][measure])
        result[measure] = {"all": gain(*pair)}
        for name, prompts in groups.items():
            rows = slice(first, first + len(prompts))
            result[measure][name] = gain(*(table[rows] for table in pair))
            first += len(prompts)
    return result


def _hits(
    pictures: Sequence[Image.Image], prompts: Sequence[str], seeds: int
) -> dict[str, np.ndarray]:
    """[prompt, seed] of whether all nouns are shown, and in their colours."""
    present, bound = [], []
    for detections, prompt in zip(detect(pictures), prompts, strict=True):
        things = things_of(prompt)
        present.append(all(shows(detections, Thing(thing.noun)) for thing in things))
        bound.append(all(shows(detections, thing) for thing in things))
    return {
        name: np.array(hits, float).reshape(-1, seeds)
        for name, hits in (("present", present), ("bound", bound))
    }


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
    scores = evaluation.evaluate(pipe, chosen, methods, timesteps=(timestep,), looks=looks, **call)
    for i, example in enumerate(chosen if family.name in ("sd3", "flux") else []):
        concepts = (*example.masks, *BACKGROUND)
        shown = concepts_of_picture(
            pipe, example.picture, example.prompt, concepts, timestep=timestep, seed=i, **call
        )
        maps = (shown.maps if shown.maps is not None else torch.empty(0))[0, : len(example.masks)]
        scores += evaluation.scored(
            maps, example, method="ConceptAttention", timestep=timestep, picture=i
        )
    return [vars(row) for row in evaluation.summarise(scores)]


def _options() -> argparse.Namespace:
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
    parser.add_argument("--max-refinements", type=int)
    return parser.parse_args()


def main() -> None:
    args = _options()
    pipe = load_pipeline(args.model)
    pipe.set_progress_bar_config(disable=True)
    known = args.model in models.MODELS
    options = guided(models.call(args.model) if known else {}, args.guidance)
    seeds = parse_seeds(args.seeds)
    reading = models.reading(args.model) if known else {}
    result: Any
    if args.measure == "single":
        result = single(pipe, seeds, **options)
    elif args.measure == "point":
        result = point(pipe, timesteps=(900.0, 700.0, 500.0, 300.0), **reading)
    elif args.measure == "read":
        result = read(pipe, scenes=args.scenes, timestep=args.timestep, **reading)
    else:
        layers = tuple(args.layers.split(",")) if args.layers else ()
        chosen = Where(kind=("cross", "joint"), stride=args.stride, layers=layers)
        guidance: dict[str, Any] = {
            "where": chosen if args.stride or layers else None,
            "descent": Descent(
                step_size=args.step_size, guided=args.guided, max_refinements=args.max_refinements
            ),
        }
        result = pairs(pipe, args.method, seeds, every=args.every, **guidance, **options)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
