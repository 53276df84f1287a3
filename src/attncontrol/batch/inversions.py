"""How methods of inversion are named in commands, and whether a run can have one. Known without
torch."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attncontrol.batch.options import schedule
from attncontrol.errors import SettingError

CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "exact": "Exact",
        "pnp-inversion": "PnPInversion",
        "ddim": "DDIMInversion",
        "fixed-point": "FixedPoint",
        "negative-prompt": "NegativePrompt",
        "null-text": "NullText",
        "dynamic-prompt": "DynamicPrompt",
        "rf-solver": "RFSolver",
        "fireflow": "FireFlow",
        "flow-edit": "FlowEdit",
    }
)
"""Names, and what they are of ``attncontrol.inversion``."""
SCHEDULERS = (
    "DDIMScheduler", "CogVideoXDDIMScheduler", "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
)  # fmt: skip
"""That can be inverted."""
GUIDANCE = ("guidance_scale", "true_cfg_scale", "negative_prompt")
"""Of a call, what the inversion has of its own."""
_LEARNED = ("null-text", "dynamic-prompt")
"""For the guidance of the run that edits."""
_GUIDED = ("negative-prompt", *_LEARNED)
"""That change the unconditional branch."""


def inversion(name: str, call: Mapping[str, Any]) -> Any:
    """A value of ``attncontrol.inversion``; null texts are those of the guidance of ``call``."""
    from attncontrol import inversion as values

    scale = {"guidance_scale": call.get("guidance_scale", 7.5)} if name in _LEARNED else {}
    return getattr(values, CLASSES[name])(**scale)


def require_known(name: str) -> None:
    """Raises SettingError."""
    if name not in CLASSES:
        raise SettingError(f"{name!r}: choose from {', '.join(CLASSES)}")


def require_inversion(name: str, pipe: Any, call: Mapping[str, Any]) -> None:
    """Raises SettingError for an unknown one, and SettingError or ModelError for one that this
    model cannot have."""
    from attncontrol.families import family_of
    from attncontrol.families.parts import two_calls
    from attncontrol.inversion._schedule import is_flow, kind_of
    from attncontrol.running.session import attach

    require_known(name)
    method = inversion(name, call)
    method.require(attach(pipe))
    if method.flow and not is_flow(pipe.scheduler):
        raise SettingError(
            f"{name!r} is for models of rectified flow, not for {kind_of(pipe.scheduler)}; "
            "leave it out"
        )
    apart = family_of(pipe).branches is two_calls
    if name in _GUIDED and (apart or call.get("guidance_scale", 7.5) <= 1):
        raise SettingError(
            f"{name!r} is for models that look at both branches of classifier-free guidance at "
            f"once; {type(pipe).__name__} does not in this run, leave it out"
        )


def invertible(pipe: Any) -> str | None:
    """Gives the pipeline DDIM's scheduler in place of one of several predictions or with noise, and
    tells the name of that."""
    before = type(pipe.scheduler).__name__
    if before in SCHEDULERS:
        return None
    config = json.loads(pipe.scheduler.to_json_string())
    schedule(pipe, {**config, "_class_name": SCHEDULERS[0], "clip_sample": False})
    return before
