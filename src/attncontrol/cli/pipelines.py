"""Pipelines for commands, and the arguments of their calls."""

from typing import Any

from attncontrol import sprites
from attncontrol.batch.options import guided, load_pipeline, quiet
from attncontrol.errors import SettingError


def opened(model: str, device: str, dtype: str) -> Any:
    """A pipeline that draws no bars and gives no notes."""
    quiet()
    pipe = load_pipeline(model, device=device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call_of(
    model: str,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    height: int | None = None,
    width: int | None = None,
) -> dict[str, Any]:
    """How the model is called; what is not given is left to it. Raises SettingError for a height
    without a width, which some pipelines ignore."""
    known = sprites.call(model) if model in sprites.MODELS else {"num_inference_steps": 50}
    given = {
        "num_inference_steps": steps,
        "negative_prompt": negative or None,
        "height": height,
        "width": width,
    }
    call = guided(known, guidance) | {k: value for k, value in given.items() if value is not None}
    if ("height" in call) != ("width" in call):
        raise SettingError("give --height and --width together")
    return call


def reading_of(model: str) -> dict[str, Any]:
    """Of the call, what changes how the prompt is read."""
    return {key: value for key, value in call_of(model).items() if key == "max_sequence_length"}
