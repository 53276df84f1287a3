"""Modular pipelines of diffusers: their blocks write into a state what other pipelines hand to
methods of their own, and a guider has the denoiser run once per condition."""

from collections.abc import Callable
from typing import Any

from attncontrol.errors import CouplingError, ModelError
from attncontrol.families.family import Family
from attncontrol.families.parts import is_modular
from attncontrol.running.blocks import close_left
from attncontrol.running.contexts import Contexts, Hooks
from attncontrol.running.observers import observe
from attncontrol.running.own import caller, state_of_run
from attncontrol.running.track import begun, seeds_of

DESCRIBED = (
    "anima", "unet", "sd3", "flux", "flux2", "flux3", "qwenimage", "qwenimage21", "zimage", "ernie",
    "krea2", "wan",
)  # fmt: skip
"""Families whose modular pipelines are tested: against the plain ones, Anima and FLUX.3 by hand."""

_BRANCHES = {"pred_cond": "cond", "pred_uncond": "uncond"}
"""Of the conditions of guiders; all others are predictions of a weakened model."""


def require_described(pipe: Any, family: Family) -> None:
    """Raises ModelError for modular pipelines of families that are not described, and for those
    without the blocks that read the prompt."""
    if not is_modular(pipe):
        return
    if not any(name.startswith(("tokenizer", "processor")) for name in pipe.components):
        raise ModelError(
            f"{type(pipe).__name__} has no tokenizer among its blocks, so its text is not known; "
            "give one pipeline with the blocks of text_encoder and denoise"
        )
    if family.name not in DESCRIBED:
        raise ModelError(
            f"{type(pipe).__name__} is a modular pipeline of the family {family.name!r}, whose "
            f"blocks are not described; those of {', '.join(DESCRIBED)} are. Give a "
            "pipeline that is not modular, with the same components"
        )


def require_plain(pipe: Any, what: str) -> None:
    """Raises ModelError for modular pipelines, which lack methods that ``what`` needs."""
    if is_modular(pipe):
        raise ModelError(
            f"{type(pipe).__name__} is a modular pipeline, and {what} calls methods (encode_prompt,"
            " prepare_latents) that these do not have; record, steer, perturb and edit work. Give "
            "a pipeline that is not modular, with the same components"
        )


def require_seen(pipe: Any, hooks: Hooks) -> None:
    """Raises ModelError where hooks need what modular pipelines do not show."""
    if hooks.starts:
        require_plain(pipe, "changing the noise that a run begins with")
    if hooks.texts:
        require_plain(pipe, "an edit with further texts")


def follow(contexts: Contexts) -> bool:
    """Begins a track where this is the first that is seen of a run; returns whether contexts are
    left, since those of a former run's blocks are closed. Raises CouplingError."""
    pipe = contexts.pipe
    if not is_modular(pipe):
        return True
    close_left()
    if not contexts.seats:
        return False
    if getattr(pipe, "guider", None) is not contexts.guider:
        raise CouplingError("the guider was replaced inside the block; do that before it")
    state = state_of_run(pipe)
    if state is None or state is contexts.track.state:
        return True
    values = dict(state.values)
    if "prompt" in values:
        values["prompt"] = contexts.family.as_given(pipe, values["prompt"])
    track = begun(pipe, values)
    track.state = state
    contexts.begin(track)
    contexts.seeds = seeds_of(state.values)
    return True


def watch_guider(contexts: Contexts) -> list[Callable[[], None]]:
    """Tells the track the conditions of every step, in the order of their calls; returns what ends
    this."""
    contexts.guider = guider = getattr(contexts.pipe, "guider", None)
    if guider is None or not is_modular(contexts.pipe):
        return []

    def told(states: list[Any]) -> list[Any]:
        if caller() is contexts.pipe:
            names = [getattr(state, guider._identifier_key) for state in states]
            contexts.track.conditions = tuple(_BRANCHES.get(name, "skip") for name in names)
        return states

    def begin(_: dict[str, Any]) -> None:
        if caller() is contexts.pipe:
            follow(contexts)

    names = "prepare_inputs", "prepare_inputs_from_block_state"
    return [observe(guider, name, begin, told) for name in names]
