"""Where a recording comes from, as values that fit in JSON."""

import math
from collections.abc import Set
from importlib.metadata import version
from typing import Any

from attncontrol.attention.between import Direction
from attncontrol.attention.moment import Step
from attncontrol.running.track import place_in
from attncontrol.version import __version__


def reductions(kept: Set[str], direction: Direction) -> tuple[str, ...]:
    """In words, in order."""
    words = {"text->image": "mean over the querying tokens of a word", "image->image": ""}
    steps = [
        words.get(direction, "sum over the tokens of a word"),
        *(f"mean over {axis}s" for axis in ("head", "step") if axis not in kept),
    ]
    return tuple(step for step in steps if step)


def sigma(scheduler: Any, step: Step) -> float | None:
    """The scheduler's own noise level, or noise per signal sqrt((1 - a) / a); None if it knows
    neither. Before the scheduler has taken the step."""
    at = place_in(scheduler, step.timestep)
    if hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order:
        return float(scheduler.sigmas_interpol[at])
    if hasattr(scheduler, "sigmas"):
        return float(scheduler.sigmas[at])
    if hasattr(scheduler, "alphas_cumprod"):
        kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[at])])
        return math.sqrt((1 - kept) / kept) if kept else math.inf
    return None


def about(pipe: Any, step: Step) -> dict[str, Any]:
    """What ran."""
    return {
        "pipeline": type(pipe).__name__,
        "model": pipe.config.get("_name_or_path"),
        "scheduler": type(pipe.scheduler).__name__,
        "guidance_scale": getattr(getattr(pipe, "guider", pipe), "guidance_scale", None),
        "negative_prompt": step.encoding.get("negative_prompt"),
        "steps": step.total,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What was installed; of this package also where it runs from a checkout."""
    others = {name: version(name) for name in ("diffusers", "torch", "transformers")}
    return {"attncontrol": __version__, **others}
