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
    """That of the first call of the denoiser, of pipelines without ``prepare_latents``."""
    if not call.is_first or hasattr(contexts.pipe, "prepare_latents"):
        return None
    own = call.latents[call.rows(call.branches[-1])] / call.step.scale
    latents = _started(contexts, own)
    return None if latents is own else (latents - own) * call.step.scale


def _started(contexts: Contexts, latents: Tensor) -> Tensor:
    for seat in contexts.acting:
        if seat.hooks.starts:
            latents = seat.hooks.starts(latents)
    return latents
