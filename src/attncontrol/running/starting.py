"""The latents that a run begins with, where a context gives it others."""

from typing import Any

from torch import Tensor

from attncontrol.running.calls import DenoiserCall
from attncontrol.running.contexts import Contexts


def replaced(contexts: Contexts, prepared: Any) -> Any:
    """What ``prepare_latents`` returned, with other latents: the first, where there is more."""
    latents = _started(contexts, prepared[0] if isinstance(prepared, tuple) else prepared)
    return (latents, *prepared[1:]) if isinstance(prepared, tuple) else latents


def change_of(contexts: Contexts, call: DenoiserCall) -> Tensor | None:
    """That of the first call of the denoiser: of latents in pipelines without ``prepare_latents``,
    and by edits where others took the place of those that were drawn."""
    if not call.is_first:
        return None
    own = call.latents[call.rows(call.branches[-1])] / call.step.scale
    before = own.clone()  # an edit may change it in place
    latents = own if hasattr(contexts.pipe, "prepare_latents") else _started(contexts, own)
    for seat in contexts.acting:
        drawn = contexts.track.drawn
        if seat.hooks.begun and drawn is not None:
            latents = contexts.begun(seat.hooks, call, latents, drawn.view_as(latents))
    return None if latents.equal(before) else (latents - before) * call.step.scale


def _started(contexts: Contexts, drawn: Tensor) -> Tensor:
    latents = drawn
    for seat in contexts.acting:
        if seat.hooks.starts:
            contexts.track.drawn, latents = drawn, seat.hooks.starts(latents)
    return latents
