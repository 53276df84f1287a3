"""Sana-Sprint: as ``sana``, in one call per step without guidance. It cannot be steered, since the
pipeline scales the latents by itself before the denoiser sees them."""

from dataclasses import replace
from typing import Any

from attncontrol.families import sana


def _branches(_: Any, nth: int, __: int | None) -> tuple[str, ...]:
    return ("cond",)[nth:]


FAMILY = replace(
    sana.FAMILY,
    name="sana-sprint",
    matches=lambda pipe: isinstance(pipe, sana.SPRINT),
    branches=_branches,
    steering="the pipeline scales the latents by itself, so a step would have another size",
)
