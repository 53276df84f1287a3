"""Edits without a source on a bundled model: ``python -m attncontrol.bench.sourceless --model
sprites-sd3 --edits taca,key-mask``; prints JSON.

Every picture of "a red cat and a blue frog" is made plain and with each edit from the same noise.
Rates, each with its gain and a 95 % bootstrap interval over prompts:

present  both nouns are shown                bound   in their colours
second   the second noun is shown            first   the first noun is shown
peaks    both are, and the maps of their words, mean over layers and steps, peak in what is shown

``osi`` has directions of keys of both nouns in the 276 pictures of "a cat and a frog" of seed 300,
as many that are absent as present of every noun; in 22 % of the heads, as in its paper for FLUX.
"""

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from torch import Tensor

from attncontrol.analysis.omission import Keys, directions, word_keys
from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import Where
from attncontrol.batch.options import load_pipeline, parse_seeds
from attncontrol.bench.edit_suite.sources import draw, mask
from attncontrol.bench.prompts import things_of
from attncontrol.bench.rates import gain
from attncontrol.bench.tasks import tasks
from attncontrol.edits.key_mask import KeyMask
from attncontrol.edits.omission_signal import OmissionSignal
from attncontrol.edits.redistribute import Redistribute
from attncontrol.edits.reweight import Reweight
from attncontrol.edits.taca import TACA
from attncontrol.sprites import models
from attncontrol.sprites.scenes import Thing
from attncontrol.sprites.scorer import detect, shows
from attncontrol.verbs.edit import edit
from attncontrol.verbs.record import record

CELLS, WORDS = Where(kind=("self", "joint")), Where(kind=("cross", "joint"))
Make = Callable[[Sequence[Thing]], Edit]
Edits = Mapping[str, tuple[Make, Where | None]]
EDITS: Edits = {
    "taca": (lambda _: TACA(), None),
    "reweight": (lambda things: Reweight({things[1].noun: 2.0}), None),
    "reweight-logit": (lambda things: Reweight({things[1].noun: 2.0}, form="logit"), None),
    "key-mask": (lambda things: KeyMask(words=(things[1].noun,)), None),
    "key-mask-soft": (lambda things: KeyMask(words=(things[1].noun,), soft=True), None),
    "redistribute": (lambda _: Redistribute(0.6), CELLS),
    "redistribute-words": (lambda _: Redistribute(0.6), WORDS),
    "without-sinks": (lambda _: Redistribute(0.0), WORDS),
    "redistribute-most": (lambda _: Redistribute(0.6, factor=1.5, most=0.3), CELLS),
}
"""What is made of the things of a prompt, and where it acts; of words it is the second noun."""


def osi(pipe: Any, strength: float, every: int = 1, **call: Any) -> Make:
    """With what the model itself shows and leaves out."""
    kinds: dict[str, tuple[list[Keys], list[Keys]]] = defaultdict(lambda: ([], []))
    chosen = tasks("pairs", every)
    for task in track(chosen, "keys of words", console=_STDERR):
        nouns = [thing.noun for thing in things_of(task.prompt)]
        with word_keys(pipe, nouns) as keys:
            found = detect(draw(pipe, [(task.prompt, 300)], call))[0]
        for noun in nouns:
            kinds[noun][shows(found, Thing(noun))].append(keys[noun])
    absent: list[Keys] = []
    present: list[Keys] = []
    for pair in kinds.values():
        for kind, keys_of_noun in zip((absent, present), pair, strict=True):
            kind += keys_of_noun[: min(map(len, pair))]
    heads = sum(keys.shape[1] for keys in absent[0].values())
    along, accuracy = directions(absent, present, top=round(0.22 * heads))
    _STDERR.print(f"{len(absent)} of each kind; best heads {list(accuracy.items())[:3]}")
    return lambda things: OmissionSignal(along, [thing.noun for thing in things], strength)


_STDERR = Console(stderr=True)  # standard output carries the JSON


def measure(
    pipe: Any, names: Sequence[str], seeds: Sequence[int], every: int, **call: Any
) -> dict[str, Any]:
    """By edit every rate, and the processor time as a multiple of that of plain pictures."""
    prompts = [task.prompt for task in tasks("colors", every)]
    jobs = list(itertools.product(prompts, seeds))
    tables, seconds = {}, {}
    edits = dict(EDITS)
    for name in names:
        if name.startswith("osi"):
            edits[name] = osi(pipe, float(name.partition("@")[2] or 5), **call), None
    for name in ("plain", *names):
        began = time.process_time()
        hits = [
            _hits(pipe, edits, name, *job, **call) for job in track(jobs, name, console=_STDERR)
        ]
        seconds[name] = time.process_time() - began
        tables[name] = np.array(hits, float).reshape(len(prompts), len(seeds), len(_RATES))
    plain = np.moveaxis(tables["plain"], 2, 0)
    return {
        name: {
            **{
                rate: gain(without, after)
                for rate, without, after in zip(
                    _RATES, plain, np.moveaxis(tables[name], 2, 0), strict=True
                )
            },
            "time": round(seconds[name] / seconds["plain"], 2),
        }
        for name in names
    }


_RATES = ("present", "bound", "first", "second", "peaks")


def _hits(pipe: Any, edits: Edits, name: str, prompt: str, seed: int, **call: Any) -> list[bool]:
    things = things_of(prompt)
    make, where = edits.get(name, (None, None))
    nouns = [thing.noun for thing in things]
    changing = nullcontext() if make is None else edit(pipe, make(things), where=where)
    with record(pipe, nouns) as maps, changing:
        pictures = draw(pipe, [(prompt, seed)], call)
    found = detect(pictures)[0]
    first, second = (shows(found, Thing(noun)) for noun in nouns)
    bound = all(shows(found, thing) for thing in things)
    peaks = all(_lies_in(maps[noun][0], mask(found, Thing(noun))) for noun in nouns)
    return [first and second, bound, first, second, first and second and peaks]


def _lies_in(cells: Tensor, where: np.ndarray) -> bool:
    """Whether the middle of the cell with the largest number is inside of a mask of pixels."""
    rows, columns = cells.shape
    y, x = divmod(int(cells.argmax()), columns)
    height, width = where.shape
    return bool(where[int((y + 0.5) * height / rows), int((x + 0.5) * width / columns)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sprites", choices=models.MODELS)
    parser.add_argument("--edits", default=",".join(EDITS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--every", type=int, default=6)
    args = parser.parse_args()
    pipe = load_pipeline(args.model)
    pipe.set_progress_bar_config(disable=True)
    names = args.edits.split(",")
    result = measure(pipe, names, parse_seeds(args.seeds), args.every, **models.call(args.model))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
