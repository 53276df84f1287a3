"""Pipelines for commands and jobs, and the arguments of their calls."""

from collections.abc import Mapping
from typing import Any

from attncontrol import sprites
from attncontrol.batch import model_files
from attncontrol.batch.options import guided, load_pipeline, quiet, require_model
from attncontrol.errors import SettingError

_BINNING = "use_resolution_binning"


def opened(model: str, device: str, dtype: str) -> Any:
    """A pipeline that draws no bars and gives no notes."""
    quiet()
    pipe = load_pipeline(model, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call_of(
    name: str,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    height: int | None = None,
    width: int | None = None,
    *,
    exact: bool = False,
) -> dict[str, Any]:
    """How the model is called; what is not given is left to it, but for the other side of a height
    or a width. With ``exact`` it takes no other size near the given one, as photos need. Raises
    SettingError for what it cannot do or would ignore."""
    known = sprites.call(name) if name in sprites.MODELS else {"num_inference_steps": 50}
    given = {"num_inference_steps": steps, "negative_prompt": negative or None}
    call = guided(known, guidance) | {k: value for k, value in given.items() if value is not None}
    if {steps, height, width} != {None}:
        about = model_files.read(name)
        _require_steps(about, call)
        call |= _sized(about, call, height, width)
    if exact and _BINNING in (model_files.read(name).arguments() or {}):
        call[_BINNING] = False
    if guidance is not None and name not in sprites.MODELS:
        _require_taken(name, "--guidance", "guidance_scale")
    if negative is not None:
        _require_negative(name, call)
    return call


def require_call(name: str, call: Mapping[str, Any]) -> None:
    """Raises SettingError for a call of an earlier run that the model cannot do or would ignore,
    ModelError for a name that is none of a model."""
    require_model(name)
    about = model_files.read(name)
    known = about.arguments()
    if known and (unknown := sorted(call.keys() - known.keys())):
        raise SettingError(f"{about.pipeline} takes no {', '.join(unknown)}")
    _require_steps(about, call)
    for side in ("height", "width"):
        _require_multiple(about, side, call.get(side, 0))
    if call.get("negative_prompt"):
        _require_negative(name, call)


def require_guidance(name: str, call: Mapping[str, Any], option: str) -> None:
    """Raises SettingError for an option that does nothing without classifier-free guidance."""
    known: Any = {}
    if name not in sprites.MODELS:
        known = model_files.read(name).arguments() or {}
    key = "true_cfg_scale" if {"true_cfg_scale"} & (call.keys() | known) else "guidance_scale"
    scale = call.get(key, known.get(key))
    if isinstance(scale, int | float) and scale <= 1:
        raise SettingError(
            f"{option} has no effect without classifier-free guidance: {key} is {scale:g}; "
            + ("give --guidance above 1" if key in call or "true" not in key else "use Python")
        )


def _require_negative(name: str, call: Mapping[str, Any]) -> None:
    """Raises SettingError for a negative prompt that the pipeline would not read."""
    if name not in sprites.MODELS:
        _require_taken(name, "--negative", "negative_prompt")
    require_guidance(name, call, "--negative")


def _require_steps(about: model_files.Model, call: Mapping[str, Any]) -> None:
    steps = call.get("num_inference_steps", 0)
    if about.steps and steps > about.steps:
        raise SettingError(f"--steps {steps}: the schedule of {about.name} has {about.steps} steps")


def _require_multiple(about: model_files.Model, name: str, side: int) -> None:
    if about.multiple and side % about.multiple:
        raise SettingError(
            f"--{name} {side}: {about.name} draws multiples of {about.multiple} pixels"
        )


def _sized(
    about: model_files.Model, call: dict[str, Any], height: int | None, width: int | None
) -> dict[str, int]:
    """Both sides if one is given, else none."""
    given = {"height": height, "width": width}
    if height is None and width is None:
        return {}
    sides = {}
    for i, (name, side) in enumerate(given.items()):
        side = side or call.get(name) or (about.size and about.size[i])
        if not side:
            raise SettingError(
                f"--{name} is missing, and the files of {about.name} do not say its own: give both"
            )
        _require_multiple(about, name, side)
        sides[name] = side
    return sides


def _require_taken(name: str, option: str, argument: str) -> None:
    """Raises SettingError for an option whose argument the pipeline does not have."""
    about = model_files.read(name)
    known = about.arguments()
    if known is not None and not {argument, "kwargs"} & known.keys():
        raise SettingError(f"{option} has no effect: {about.pipeline} takes no {argument}")


def reading_of(model: str) -> dict[str, Any]:
    """Of the call, what changes how the prompt and a picture are read."""
    return sprites.models.reading(model) if model in sprites.MODELS else {}
