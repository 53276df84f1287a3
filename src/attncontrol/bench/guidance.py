"""What perturbation guidance does for the pictures of a bundled model: ``python -m
attncontrol.bench.guidance``; prints a table.

    python -m attncontrol.bench.guidance --model sprites --seeds 0-1999 \\
        --heads heads.json --out guidance-sprites

Arms, all from the same prompts and seeds, those of the captions of true scenes:

plain              without classifier-free guidance
pag, seg           SoftIdentity, SmoothedQuery of infinite sigma, at the self-attention of the
                   middle block of a UNet, or at the joint attention of the middle one or two blocks
                   of a transformer
softpag            SoftIdentity(u) at the heads of a search
cfg, cfg+pag ...   classifier-free guidance as in ``sprites.CALL``, alone and with one of these

Added are ``true``, the scenes of the prompts themselves after the autoencoder: what a perfect model
would score; and the reference of the Frechet distance, as many other true scenes. One line per
picture is appended to a file per arm after every batch; an interrupted run goes on, and several
processes with seeds of their own may share a folder. The table is that of all pictures there.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from attncontrol.attention.sites import Where
from attncontrol.batch.head_search import load_heads
from attncontrol.batch.options import DTYPES, guided, load, parse_seeds
from attncontrol.batch.results import append_lines, read_lines, same_settings
from attncontrol.edits.smoothed_query import SmoothedQuery
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.running.session import attach
from attncontrol.sprites.models import CALL, MODELS
from attncontrol.sprites.quality import (
    Gaussian,
    Quality,
    frechet,
    gaussian,
    measure,
    redrawn,
    scene,
)
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.plan import Heads, On

ARMS = ("plain", "pag", "seg", "softpag", "cfg", "cfg+pag", "cfg+seg", "cfg+softpag")
MEASURES = ("frechet", "iou", "confidence", "present", "bound")
_TRUE = ("reference", "true")
_RESAMPLES = 400


@dataclass(frozen=True)
class Arm:
    """A way of generating: with classifier-free guidance or without, and ``perturb`` of what at
    which scale, if at all."""

    guided: bool
    weakened: On | None = None
    scale: float = 0.0

    def call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the pipeline."""
        return guided(call, None if self.guided else 1.0)


@dataclass(frozen=True)
class Row:
    """One picture; ``number`` is its seed and that of its scene, ``seconds`` its share of its
    batch."""

    number: int
    seconds: float
    quality: Quality


def arms(
    pipe: Any,
    names: Iterable[str],
    *,
    heads: Heads = (),
    u: float = 0.5,
    scale: float = 3.0,
    scales: Mapping[str, float] | None = None,
) -> dict[str, Arm]:
    """The arms of these names for a pipeline, with ``scale`` where ``scales`` has none for an arm.

    Raises ValueError for other names, and for softpag without heads.
    """
    edits = {
        "pag": lambda: On(SoftIdentity(), where=middle(pipe)),
        "seg": lambda: On(SmoothedQuery(), where=middle(pipe)),
        "softpag": lambda: On(SoftIdentity(u), heads=[(name, head) for name, head in heads]),
    }
    found, scales = {}, scales or {}
    for name in (*names, *scales):
        if name not in ARMS:
            raise ValueError(f"there is no arm {name!r}; choose from {', '.join(ARMS)}")
    for name in names:
        how = name.rpartition("+")[2]
        if how == "softpag" and not heads:
            raise ValueError(
                "softpag needs the heads of a search: --heads heads.json, as attncontrol heads search writes it"
            )
        guided = name.startswith("cfg")
        found[name] = (
            Arm(guided, edits[how](), scales.get(name, scale)) if how in edits else Arm(guided)
        )
    return found


def middle(pipe: Any) -> Where:
    """Self-attention of the middle block of a UNet; joint attention of the middle block of a
    transformer, the middle two of an even number."""
    sites = [site for site in attach(pipe).sites.values() if site.kind != "cross"]
    names = [site.name for site in sites if site.name.startswith("mid_block")]
    names = names or [site.name for site in sites[(len(sites) - 1) // 2 : len(sites) // 2 + 1]]
    return Where(kind=("self", "joint"), layers=tuple(names))


def run(
    pipe: Any,
    of: Mapping[str, Arm],
    numbers: Sequence[int],
    folder: Path,
    *,
    prompted: bool = True,
    batch: int = 8,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    **call: Any,
) -> None:
    """Makes what ``folder`` lacks of the pictures of all arms; the arms take turns batch by batch,
    so all see the same load.

    ``call`` goes to the pipeline. Without ``prompted`` every prompt is empty.
    Raises ResultsError if the folder has pictures of an arm with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*_TRUE, *of):
        settings = {"model": type(pipe).__name__, "dtype": str(pipe.dtype), "prompted": prompted}
        settings |= {"arm": repr(of[name]), "call": of[name].call(call)} if name in of else {}
        same_settings(folder / f"{name}.json", settings, of=folder / f"{name}.jsonl")
    made = {name: read(folder / f"{name}.jsonl").keys() for name in (*_TRUE, *of)}
    for chunk in progress([numbers[i : i + batch] for i in range(0, len(numbers), batch)]):
        for name in (*_TRUE, *of):
            wanted = [number for number in chunk if number not in made[name]]
            if not wanted:
                continue
            scenes = [scene(number, reference=name == "reference") for number in wanted]
            began = time.perf_counter()
            if name in _TRUE:
                pictures = redrawn(pipe, scenes)
            else:
                prompts = [each.caption if prompted else "" for each in scenes]
                pictures = _pictures(pipe, of[name], prompts, wanted, call)
            seconds = (time.perf_counter() - began) / len(wanted)
            qualities = measure(pictures, [each.named if prompted else () for each in scenes])
            append_lines(
                folder / f"{name}.jsonl",
                [asdict(Row(n, seconds, q)) for n, q in zip(wanted, qualities, strict=True)],
            )


def _pictures(
    pipe: Any, arm: Arm, prompts: Sequence[str], seeds: Sequence[int], call: Mapping[str, Any]
) -> list[Image.Image]:
    around = perturb(pipe, [arm.weakened], scale=arm.scale) if arm.weakened else nullcontext()
    with around:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        images: list[Image.Image] = pipe(
            prompt=list(prompts), generator=generators, **arm.call(call)
        ).images
    return images


def read(file: Path) -> dict[int, Row]:
    """Rows by number."""
    rows = {}
    for known in read_lines(file):
        quality = Quality(**{**known["quality"], "features": tuple(known["quality"]["features"])})
        rows[known["number"]] = Row(known["number"], known["seconds"], quality)
    return rows


def table(folder: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """One line per arm, plain first, and ``true``: Frechet distance to the reference and the mean
    of every other measure, the gain of each over plain with a 95 % bootstrap interval, and the
    median ratio of time to plain.

    The pictures are the numbers that all arms made; resampled are numbers, the same ones in all
    arms, with the reference as it is.
    """
    rows = {
        name: read(folder / f"{name}.jsonl") for name in dict.fromkeys((*_TRUE, "plain", *names))
    }
    numbers = sorted(set.intersection(*(set(of_arm) for of_arm in rows.values())))
    if len(numbers) < 2:
        raise ValueError(
            f"{folder} has {len(numbers)} pictures that all of {', '.join(rows)} made; a table needs two"
        )
    values = {
        name: _values([of_arm[number] for number in numbers]) for name, of_arm in rows.items()
    }
    reference = gaussian(values.pop("reference")[1])
    rng = np.random.default_rng(0)
    picks = [
        np.bincount(rng.integers(len(numbers), size=len(numbers)), minlength=len(numbers))
        for _ in range(_RESAMPLES)
    ]
    picks.append(np.ones(len(numbers), int))  # all of them as they are
    plain, lines = _drawn(reference, *values["plain"], picks), []
    for name in ("plain", *(name for name in values if name != "plain")):
        drawn = plain if name == "plain" else _drawn(reference, *values[name], picks)
        *resampled, gains = drawn - plain
        low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
        line: dict[str, Any] = {"arm": name, "n": len(numbers)}
        for k, measured in enumerate(MEASURES):
            line[measured] = round(float(drawn[-1, k]), 4)
            line[f"{measured}_gain"] = round(float(gains[k]), 4)
            line[f"{measured}_interval"] = [round(float(low[k]), 4), round(float(high[k]), 4)]
        ratios = [rows[name][number].seconds / rows["plain"][number].seconds for number in numbers]
        lines.append(
            line
            | {"time_ratio": float("nan") if name == "true" else round(float(np.median(ratios)), 2)}
        )
    return lines


def _drawn(
    reference: Gaussian, measured: np.ndarray, features: np.ndarray, picks: Sequence[np.ndarray]
) -> np.ndarray:
    """MEASURES of every resample [resample measure], of which ``picks`` say how often each picture
    counts."""
    return np.array(
        [
            [frechet(reference, gaussian(features, counts)), *(counts @ measured / counts.sum())]
            for counts in picks
        ]
    )


def _values(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """[picture measure] of all but the Frechet distance, and features [picture feature]."""
    measured = [[getattr(row.quality, name) for name in MEASURES[1:]] for row in rows]
    return np.array(measured, float), np.array([row.quality.features for row in rows])


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The table for people: Frechet distance in its own units, the rest in percent; in brackets the
    gain over plain."""
    head = ["arm", "n", "Frechet distance", "sprite IoU", *MEASURES[2:], "time"]
    cells = [head, ["---"] * len(head)]
    for line in lines:
        row = [line["arm"], str(line["n"])]
        for name in MEASURES:
            unit = 1 if name == "frechet" else 100
            low, high = (unit * v for v in line[f"{name}_interval"])
            gain = (
                f" ({unit * line[f'{name}_gain']:+.1f}; {low:.1f} to {high:.1f})"
                if line["arm"] != "plain"
                else ""
            )
            row.append("" if np.isnan(line[name]) else f"{unit * line[name]:.1f}{gain}")
        cells.append([*row, "" if np.isnan(line["time_ratio"]) else f"{line['time_ratio']:.1f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sprites", choices=list(MODELS))
    parser.add_argument(
        "--arms", default=",".join(ARMS), help="separated by commas; plain is always made"
    )
    parser.add_argument("--seeds", default="0-1999", help="of the pictures and of their scenes")
    parser.add_argument(
        "--heads", type=Path, help="of softpag: heads.json of attncontrol heads search"
    )
    parser.add_argument("--u", type=float, default=0.5, help="of softpag")
    parser.add_argument(
        "--scale", default="3", help="w of the perturbation; of single arms: 3,seg=5,cfg+pag=1"
    )
    parser.add_argument(
        "--unconditional", action="store_true", help="empty prompts, and only the arms without cfg"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--out", type=Path, default=Path("attncontrol-guidance"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = [
        name for name in args.arms.split(",") if not (args.unconditional and name.startswith("cfg"))
    ]
    pipe = load(args.model, device=args.device, dtype=DTYPES[args.dtype])
    pipe.set_progress_bar_config(disable=True)
    call = {**CALL[args.model], **({"num_inference_steps": args.steps} if args.steps else {})}
    heads = load_heads(args.heads) if args.heads else ()
    common, *single = args.scale.split(",")
    try:
        scales = {name: float(scale) for name, _, scale in (part.partition("=") for part in single)}
        of = arms(
            pipe,
            dict.fromkeys(("plain", *names)),
            heads=heads,
            u=args.u,
            scale=float(common),
            scales=scales,
        )
        options = {"prompted": not args.unconditional, "batch": args.batch, "progress": _progress}
        run(pipe, of, parse_seeds(args.seeds), args.out, **options, **call)
        lines = table(args.out, of)
    except ValueError as error:
        parser.error(str(error))
    print(json.dumps(lines, indent=1) if args.json else markdown(lines))


def _progress(chunks: Iterable[Any]) -> Iterable[Any]:
    return track(list(chunks), description="batches", console=Console(stderr=True))


if __name__ == "__main__":
    main()
