"""What ``auto`` gains under every scheduler: ``python -m attncontrol.bench.schedulers --out DIR``.

Plain and guided pictures of the suite ``colors``, the same prompts and seeds for all, on the UNet
with schedulers that predict noise and on SD3 and FLUX with those of flows; as many evaluations of
the network for each (25, of which solvers with two in a step make 13 steps). The first scheduler of
a model is what the gains of the others are compared with. A run goes on where it was; those of
several models or schedulers may go into one folder, ``--out`` alone tells the table of all.
"""

import argparse
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from attncontrol.batch.options import parse_seeds, schedule
from attncontrol.batch.pipelines import call_of, opened
from attncontrol.bench.by_pipe import make
from attncontrol.bench.rates import bootstrap, by_prompt
from attncontrol.bench.rows import Row, read
from attncontrol.errors import SettingError


class Solver(NamedTuple):
    """A scheduler of diffusers by name, with what is set beside the noise of the model."""

    scheduler: str
    settings: Mapping[str, Any] = MappingProxyType({})


_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
_SHIFTED = {"use_dynamic_shifting": True, "time_shift_type": "exponential"}  # FLUX tells a shift

NOISE = {
    "ddim": Solver("DDIMScheduler"),
    "euler": Solver("EulerDiscreteScheduler"),
    "ddpm": Solver("DDPMScheduler", {"clip_sample": False}),
    "pndm": Solver("PNDMScheduler", {"skip_prk_steps": True}),
    "pndm-runge-kutta": Solver("PNDMScheduler", {"skip_prk_steps": False}),
    "euler-ancestral": Solver("EulerAncestralDiscreteScheduler"),
    "lms": Solver("LMSDiscreteScheduler"),
    "dpm-multistep": Solver("DPMSolverMultistepScheduler"),
    "dpm-multistep-sde": Solver(
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}
    ),
    "dpm-single": Solver("DPMSolverSinglestepScheduler"),
    "dpm-single-3": Solver("DPMSolverSinglestepScheduler", {"solver_order": 3}),
    "deis": Solver("DEISMultistepScheduler"),
    "unipc": Solver("UniPCMultistepScheduler"),
    "sa": Solver("SASolverScheduler"),
    "heun": Solver("HeunDiscreteScheduler"),
    "kdpm2": Solver("KDPM2DiscreteScheduler"),
    "kdpm2-ancestral": Solver("KDPM2AncestralDiscreteScheduler"),
    "dpm-sde": Solver("DPMSolverSDEScheduler", {"noise_sampler_seed": 0}),
    "lcm": Solver("LCMScheduler", {"clip_sample": False}),
    "tcd": Solver("TCDScheduler", {"clip_sample": False}),
}
FLOW = {
    "euler": Solver("FlowMatchEulerDiscreteScheduler"),
    "heun": Solver("FlowMatchHeunDiscreteScheduler"),
    "lcm": Solver("FlowMatchLCMScheduler"),
    "unipc": Solver("UniPCMultistepScheduler", _FLOW),
    "dpm-multistep": Solver("DPMSolverMultistepScheduler", _FLOW),
    "dpm-single": Solver("DPMSolverSinglestepScheduler", _FLOW),
    "sa": Solver("SASolverScheduler", _FLOW),
}
SHIFTED = {
    "euler": FLOW["euler"],
    "lcm": FLOW["lcm"],
    "unipc": Solver("UniPCMultistepScheduler", _FLOW | _SHIFTED),
    "dpm-multistep": Solver("DPMSolverMultistepScheduler", _FLOW | _SHIFTED),
    "dpm-single": Solver("DPMSolverSinglestepScheduler", _FLOW | _SHIFTED),
}
SOLVERS: Mapping[str, Mapping[str, Solver]] = {
    "sprites": NOISE, "sprites-sd3": FLOW, "sprites-flux": SHIFTED,
}  # fmt: skip
_OTHER_NOISE = ("algorithm_type", "solver_order", "prediction_type")
MEASURES = ("present", "bound")


def set_scheduler(pipe: Any, solver: Solver) -> None:
    """Gives the pipeline a scheduler with the noise of its own."""
    config = {k: v for k, v in pipe.scheduler.config.items() if k not in _OTHER_NOISE}
    schedule(pipe, config | {"_class_name": solver.scheduler} | dict(solver.settings))


def steps_of(scheduler: Any, evaluations: int) -> int:
    """The steps of a run of so many evaluations of the network: two in each but the last where a
    solver says which comes, two in the first of PNDM, or four in its first three."""
    if hasattr(type(scheduler), "state_in_first_order"):
        return (evaluations + 1) // 2
    if hasattr(scheduler, "plms_timesteps"):
        return evaluations - 1 if scheduler.config["skip_prk_steps"] else max(evaluations - 9, 4)
    return evaluations


def measure(
    pipe: Any,
    solvers: Mapping[str, Solver],
    seeds: Sequence[int],
    folder: Path,
    *,
    progress: Callable[[Iterable[Any], str], Iterable[Any]],
    evaluations: int = 25,
    **how: Any,
) -> None:
    """Makes what the folder of each solver lacks; ``how`` is for ``by_pipe.make``."""
    own = pipe.scheduler
    try:
        for name, solver in solvers.items():
            pipe.scheduler = own
            set_scheduler(pipe, solver)
            how |= {"num_inference_steps": steps_of(pipe.scheduler, evaluations)}
            file = folder / name / "pictures.csv"
            for method in ("plain", "auto"):
                make(pipe, "colors", method, seeds, file, progress=progress, **how)
    finally:
        pipe.scheduler = own


def table(folder: Path) -> str:
    """Markdown: of every scheduler the rates of plain and guided pictures, and its gain less that
    of the first, on the prompts that both have; 95 % intervals over prompts."""
    head = ["model", "scheduler", "n", *(f"{m}: plain -> auto, gain" for m in MEASURES)]
    head += [f"{m}: gain less the first one's" for m in MEASURES]
    lines = [head, ["---"] * len(head)]
    for model, solvers in SOLVERS.items():
        found: dict[str, list[Row]] = {
            name: read(folder / model / name / "pictures.csv") for name in solvers
        }
        gains = {name: _gains(rows) for name, rows in found.items() if rows}
        first = gains.get(next(iter(solvers)))
        for name, of in gains.items():
            cells = [_cell(found[name], measure, of[measure]) for measure in MEASURES]
            less = [_less(of[m], first[m]) if first and of is not first else "" for m in MEASURES]
            lines.append([model, name, str(len(of["bound"])), *cells, *less])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


Gains = Mapping[str, Mapping[tuple[str, int], float]]
"""By measure, prompt and seed."""


def _gains(rows: Sequence[Row]) -> Gains:
    plain, guided = (
        {(row.prompt, row.seed): row for row in rows if row.method == method}
        for method in ("plain", "auto")
    )
    return {
        measure: {
            key: getattr(guided[key], measure) - getattr(plain[key], measure)
            for key in guided.keys() & plain.keys()
        }
        for measure in MEASURES
    }


def _cell(rows: Sequence[Row], measure: str, gains: Mapping[tuple[str, int], float]) -> str:
    plain, guided = (
        np.mean([getattr(row, measure) for row in rows if row.method == method])
        for method in ("plain", "auto")
    )
    return f"{100 * plain:.0f} -> {100 * guided:.0f}, {_mean(gains)}"


def _less(ours: Mapping[tuple[str, int], float], theirs: Mapping[tuple[str, int], float]) -> str:
    return _mean({key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()})


def _mean(values: Mapping[tuple[str, int], float]) -> str:
    if not values:
        return ""
    of_prompts = by_prompt(values, sorted({prompt for prompt, _ in values}))
    low, high = bootstrap(of_prompts)
    return f"{100 * of_prompts.mean():+.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", action="append", choices=SOLVERS, help="repeated; none: table")
    parser.add_argument("--schedulers", help="names, separated by commas; all of the model if left")
    parser.add_argument("--every", type=int, default=3, help="n-th of the 276 prompts")
    parser.add_argument("--seeds", default="1000")
    parser.add_argument("--evaluations", type=int, default=25)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def _chosen(model: str, names: str | None) -> Mapping[str, Solver]:
    """Raises SettingError."""
    known = SOLVERS[model]
    if names is None:
        there = importlib.util.find_spec("torchsde") is not None
        return {name: solver for name, solver in known.items() if there or name != "dpm-sde"}
    if unknown := [name for name in names.split(",") if name not in known]:
        raise SettingError(f"{unknown[0]!r}: {model} has {', '.join(known)}")
    return {name: known[name] for name in names.split(",")}


def main() -> None:
    args = _options()
    seeds, console = parse_seeds(args.seeds), Console(stderr=True)
    for model in args.model or ():
        chosen = _chosen(model, args.schedulers)
        pipe = opened(model, args.device, args.dtype)
        call = call_of(model) | {"every": args.every, "batch": args.batch}
        call |= {"evaluations": args.evaluations}
        measure(
            pipe, chosen, seeds, args.out / model, **call,
            progress=lambda items, text: track(items, description=text, console=console),
        )  # fmt: skip
    print(table(args.out))


if __name__ == "__main__":
    main()
