"""What perturbation guidance does for the pictures of a bundled model: ``python -m
attncontrol.bench.guidance``; prints a table.

    python -m attncontrol.bench.guidance --model sprites --seeds 0-1999 \\
        --heads heads.json --out guidance-sprites

Arms, all from the same prompts and seeds, those of the captions of true scenes:

plain              without classifier-free guidance
pag, seg           SoftIdentity, SmoothedQuery of infinite sigma, at the self-attention of the
                   middle block of a UNet, or at the joint, or else self-attention of the
                   middle one or two blocks of a transformer
softpag            SoftIdentity(u) at the heads of a search
cfg, cfg+pag ...   classifier-free guidance as in ``sprites.call``, alone and with one of these

Added are ``true``, the scenes of the prompts themselves after the autoencoder: what a perfect model
would score; and the reference of the Frechet distance, as many other true scenes. One line per
picture is appended to a file per arm after every batch; an interrupted run goes on, and several
processes with seeds of their own may share a folder. The table is that of all pictures there.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from attncontrol.attention.sites import Where
from attncontrol.batch.chosen_heads import load_heads
from attncontrol.batch.generate import called
from attncontrol.batch.options import DTYPES, guided, load_pipeline, parse_seeds
from attncontrol.batch.results import append_lines, require_results, same_settings
from attncontrol.bench.guidance_table import TRUE, Row, markdown, read, table
from attncontrol.edits.smoothed_query import SmoothedQuery
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.errors import SettingError, WriteError
from attncontrol.running.session import attach
from attncontrol.sprites import models
from attncontrol.sprites.quality import (
    measure,
    redrawn,
    scene,
)
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import Heads, On

ARMS = ("plain", "pag", "seg", "softpag", "cfg", "cfg+pag", "cfg+seg", "cfg+softpag")


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

    Raises SettingError for other names, and for softpag without heads.
    """
    edits = {
        "pag": lambda: On(SoftIdentity(), where=middle(pipe)),
        "seg": lambda: On(SmoothedQuery(), where=middle(pipe)),
        "softpag": lambda: On(SoftIdentity(u), heads=[(name, head) for name, head in heads]),
    }
    chosen, scales = {}, scales or {}
    for name in (*names, *scales):
        if name not in ARMS:
            raise SettingError(f"there is no arm {name!r}; choose from {', '.join(ARMS)}")
    for name in names:
        how = name.rpartition("+")[2]
        if how == "softpag" and not heads:
            raise SettingError(
                "softpag needs the heads of a search: --heads heads.json, "
                "as attncontrol heads search writes it"
            )
        guided = name.startswith("cfg")
        chosen[name] = (
            Arm(guided, edits[how](), scales.get(name, scale)) if how in edits else Arm(guided)
        )
    return chosen


def middle(pipe: Any) -> Where:
    """Self-attention of the middle block of a UNet; of a transformer joint, or else self-attention
    of the middle block, the middle two of an even number."""
    sites = [site for site in attach(pipe).sites.values() if site.kind != "cross"]
    names = [site.name for site in sites if site.name.startswith("mid_block")]
    names = names or [site.name for site in sites[(len(sites) - 1) // 2 : len(sites) // 2 + 1]]
    return Where(kind=("self", "joint"), layers=tuple(names))


def run(
    pipe: Any,
    by_name: Mapping[str, Arm],
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
    require_place(folder)
    for name in (*TRUE, *by_name):
        settings = {"model": type(pipe).__name__, "prompted": prompted}
        settings |= {"device": str(pipe.device), "dtype": str(pipe.dtype)}
        settings |= (
            {"arm": repr(by_name[name]), "call": by_name[name].call(call)}
            if name in by_name
            else {}
        )
        same_settings(folder / f"{name}.json", settings, of=folder / f"{name}.jsonl")
    made = {name: read(folder / f"{name}.jsonl").keys() for name in (*TRUE, *by_name)}
    for chunk in progress([numbers[i : i + batch] for i in range(0, len(numbers), batch)]):
        for name in (*TRUE, *by_name):
            if wanted := [number for number in chunk if number not in made[name]]:
                rows = _rows(pipe, name, by_name.get(name), wanted, prompted, call)
                append_lines(folder / f"{name}.jsonl", map(asdict, rows))


def require_place(folder: Path) -> None:
    """Raises WriteError for a folder that holds other things than results of ``run``."""
    require_results(folder, f"{TRUE[0]}.json", [])


def _rows(
    pipe: Any,
    name: str,
    arm: Arm | None,
    numbers: Sequence[int],
    prompted: bool,
    call: Mapping[str, Any],
) -> list[Row]:
    """Of an arm, or without one of the scenes themselves."""
    scenes = [scene(number, reference=name == "reference") for number in numbers]
    began = time.perf_counter()
    if arm is None:
        pictures = redrawn(pipe, scenes)
    else:
        prompts = [each.caption if prompted else "" for each in scenes]
        pictures = _pictures(pipe, arm, prompts, numbers, call)
    seconds = (time.perf_counter() - began) / len(numbers)
    qualities = measure(pictures, [each.named if prompted else () for each in scenes])
    return [Row(n, seconds, quality) for n, quality in zip(numbers, qualities, strict=True)]


def _pictures(
    pipe: Any, arm: Arm, prompts: Sequence[str], seeds: Sequence[int], call: Mapping[str, Any]
) -> list[Image.Image]:
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    if arm.weakened:
        around = partial(perturb, pipe, [arm.weakened], scale=arm.scale)
    return [*called(pipe, prompts, seeds, around=around, **arm.call(call)).images]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="sprites", choices=list(models.MODELS))
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
    return parser


def main() -> None:
    parser = _parser()
    args = parser.parse_args()
    prompted = not args.unconditional
    names = [name for name in args.arms.split(",") if prompted or not name.startswith("cfg")]
    try:
        require_place(args.out)
    except WriteError as error:
        parser.error(str(error))
    pipe = load_pipeline(args.model, device=args.device, dtype=args.dtype)
    pipe.set_progress_bar_config(disable=True)
    call = models.call(args.model) | ({"num_inference_steps": args.steps} if args.steps else {})
    heads = load_heads(args.heads) if args.heads else ()
    common, *single = args.scale.split(",")
    try:
        scales = {name: float(scale) for name, _, scale in (part.partition("=") for part in single)}
        strength = {"u": args.u, "scale": float(common), "scales": scales}
        chosen = arms(pipe, dict.fromkeys(("plain", *names)), heads=heads, **strength)
        options = {"prompted": prompted, "batch": args.batch, "progress": _progress}
        run(pipe, chosen, parse_seeds(args.seeds), args.out, **options, **call)
        lines = table(args.out, chosen)
    except (ValueError, WriteError) as error:
        parser.error(str(error))
    print(json.dumps(lines, indent=1) if args.json else markdown(lines))


def _progress(chunks: Iterable[Any]) -> Iterable[Any]:
    return track(list(chunks), description="batches", console=Console(stderr=True))


if __name__ == "__main__":
    main()
