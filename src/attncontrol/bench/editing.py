"""Measures edits on the bundled models: ``python -m attncontrol.bench.editing --model sprites
--methods replace,mutual --pairs 100``; prints JSON.

A pair is "a red cat and a frog" and, from the same noise, "a blue cat and a frog" or "a red dog and
a frog"; its source shows both things. Of the picture of the second prompt, plain and edited:

shown       what the prompt changes is there (the scorer finds it, in its colour)
kept        the other thing is where it is in the source: their masks have an IoU of at least 0.5
both        shown and kept
difference  mean absolute difference to the source outside what changes, in 0 .. 1
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from attncontrol.attention.edit import Edit
from attncontrol.batch.options import load_pipeline, parse_seeds
from attncontrol.edits.mutual_attention import MutualAttention
from attncontrol.edits.replace import Replace
from attncontrol.sprites import models
from attncontrol.sprites.scenes import COLORS, NOUNS, Thing, caption
from attncontrol.sprites.scorer import Detection, detect, shows
from attncontrol.verbs.edit import edit

METHODS: Mapping[str, Edit] = {"replace": Replace(), "mutual": MutualAttention()}
MEASURES = ("shown", "kept", "both", "difference")
# words of one token in all bundled models: prompt-to-prompt swaps words of equal length
_WORDS = [
    noun for noun in NOUNS if noun not in ("elephant", "turtle", "backpack", "glasses", "suitcase")
]
_HUES = [color for color in COLORS if color != "purple"]
_BATCH = 16
Place = Callable[[Any], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Task:
    """A prompt, others in which its first thing has another colour or is another one, and the seed
    of the noise of all."""

    source: tuple[Thing, Thing]
    targets: tuple[tuple[Thing, Thing], ...]
    seed: int

    @property
    def prompts(self) -> list[str]:
        return [caption(things)[0] for things in (self.source, *self.targets)]


def tasks(seeds: Sequence[int]) -> Iterator[Task]:
    """Without end; the same on every machine."""
    for number in itertools.count():
        rng = np.random.default_rng((17, number))
        noun, other, swapped = map(str, rng.choice(_WORDS, 3, replace=False))
        color, changed = map(str, rng.choice(_HUES, 2, replace=False))
        rest = Thing(other)
        targets = ((Thing(noun, changed), rest), (Thing(swapped, color), rest))
        for seed in seeds:
            yield Task((Thing(noun, color), rest), targets, seed)


def pictures(pipe: Any, jobs: Sequence[tuple[str, int]], **call: Any) -> list[Image.Image]:
    """Of (prompt, seed) in one batch."""
    generators = [torch.Generator().manual_seed(seed) for _, seed in jobs]
    made: list[Image.Image] = pipe(
        [prompt for prompt, _ in jobs], generator=generators, **call
    ).images
    return made


def chosen(pipe: Any, count: int, seeds: Sequence[int], **call: Any) -> list[Task]:
    """The first tasks whose source shows both of its things, with ``count`` targets in all."""
    kept: list[Task] = []
    every = tasks(seeds)
    while sum(len(task.targets) for task in kept) < count:
        some = list(itertools.islice(every, _BATCH))
        detected = detect(pictures(pipe, [(task.prompts[0], task.seed) for task in some], **call))
        kept += [
            task
            for task, of_source in zip(some, detected, strict=True)
            if all(shows(of_source, thing) for thing in task.source)
        ]
    return kept[: -(-count // 2)]


def made(pipe: Any, task: Task, place: Place, **call: Any) -> tuple[list[Image.Image], float]:
    """The picture of the source and those of the targets, and the seconds they took."""
    began = time.perf_counter()
    with place(pipe):
        of_task = pictures(pipe, [(prompt, task.seed) for prompt in task.prompts], **call)
    return of_task, time.perf_counter() - began


def judged(task: Task, of_task: Sequence[Image.Image]) -> np.ndarray:
    """[target measure]"""
    source, *targets = detect(of_task)
    first, *others = (np.asarray(picture, np.float64) / 255 for picture in of_task)
    rows = []
    for things, detections, picture in zip(task.targets, targets, others, strict=True):
        shown = shows(detections, things[0])
        kept = _overlap(_mask(source, things[1].noun), _mask(detections, things[1].noun)) >= 0.5
        changing = _mask(source, task.source[0].noun) | _mask(detections, things[0].noun)
        difference = np.abs(picture - first).mean(-1)[~changing].mean()
        rows.append([shown, kept, shown and kept, difference])
    return np.array(rows, float)


def _mask(detections: Sequence[Detection], noun: str) -> np.ndarray:
    """Where a noun is (height, width); nowhere if it was not found."""
    masks = [detection.mask for detection in detections if detection.noun == noun]
    return masks[0] if masks else np.zeros((128, 128), bool)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def compared(plain: np.ndarray, edited: np.ndarray) -> dict[str, Any]:
    """Of [task target measure]: the means, and the mean of the difference with its 95 % bootstrap
    interval over tasks."""
    rng = np.random.default_rng(0)
    pick = rng.integers(len(plain), size=(10_000, len(plain)))
    gains = (edited - plain).mean(1)  # task measure
    intervals = np.quantile(gains[pick].mean(1), (0.025, 0.975), axis=0).T
    return {
        name: {
            "plain": round(float(plain[..., k].mean()), 4),
            "edited": round(float(edited[..., k].mean()), 4),
            "gain": round(float(gains[:, k].mean()), 4),
            "interval": [round(float(x), 4) for x in intervals[k]],
        }
        for k, name in enumerate(MEASURES)
    }


def measure(
    pipe: Any, places: Mapping[str, Place], count: int, seeds: Sequence[int], **call: Any
) -> dict[str, Any]:
    """Of every place and, among the targets, of colours and nouns apart."""
    some = chosen(pipe, count, seeds, **call)
    tables, seconds = {}, {}
    every: dict[str, Place] = {"plain": lambda _: nullcontext(), **places}
    for name, place in every.items():
        results = [
            made(pipe, task, place, **call)
            for task in track(some, description=name, console=Console(stderr=True))
        ]
        tables[name] = np.stack(
            [judged(task, of_task) for task, (of_task, _) in zip(some, results, strict=True)]
        )
        seconds[name] = sum(spent for _, spent in results)
    return {
        name: {
            "n": tables[name][..., 0].size,
            "time_ratio": round(seconds[name] / seconds["plain"], 3),
            "all": compared(tables["plain"], tables[name]),
            "color": compared(tables["plain"][:, :1], tables[name][:, :1]),
            "noun": compared(tables["plain"][:, 1:], tables[name][:, 1:]),
        }
        for name in places
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sprites", choices=models.MODELS)
    parser.add_argument("--methods", default="replace,mutual")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seeds", default="0-3")
    args = parser.parse_args()
    pipe = load_pipeline(args.model)
    pipe.set_progress_bar_config(disable=True)
    places = {name: _place(METHODS[name]) for name in args.methods.split(",")}
    seeds = parse_seeds(args.seeds)
    result = measure(pipe, places, args.pairs, seeds, **models.call(args.model))
    print(json.dumps({"model": args.model, "seeds": seeds, **result}, indent=1))


def _place(what: Edit) -> Place:
    return lambda pipe: edit(pipe, what)


if __name__ == "__main__":
    main()
