"""A subject in the picture of the source: where it is seen, and latents around it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.regions import onto
from attncontrol.attention.sites import path_matches
from attncontrol.attention.source import Source
from attncontrol.edits._looking import look_at
from attncontrol.edits._maps import apart, mean, smooth
from attncontrol.prompts.words import Word


def others(now: Moment, source: Source) -> list[int]:
    """The places of images that are no source among the latents."""
    return [k for k, image in enumerate(now.images) if now.source_of(source, image) != image]


def look_for(
    subject: Word,
    layers: Sequence[str],
    notes: dict[Any, Any],
    call: AttentionCall,
    now: Moment,
    source: Source,
    blend: float | None,
) -> None:
    """Adds up the attention to the subject in the step ``blend`` and the two before it."""
    if blend is None or now.purpose != "own" or "cond" not in now.branches:
        return
    early = steps_in(blend, now.step.total) - now.step.index
    if early not in (0, 1, 2) or (
        layers and not any(path_matches(call.site.name, pattern) for pattern in layers)
    ):
        return
    for image in now.images:
        if now.source_of(source, image) != image:
            positions = now.span(subject, image).positions
            look_at(notes.setdefault(("maps", image), {}), call, now, image, positions)


def transferred(
    latents: Tensor, notes: dict[Any, Any], now: Moment, source: Source, share: float | None
) -> Tensor:
    """Before a step the source's latents, with the first noise of their own in place of its."""
    if "first" not in notes:
        assert now.before is not None  # after a step
        notes["first"] = now.before - now.before_of(source), now.step.noise
    (first, noise), theirs = notes["first"], now.latents_of(source, latents)
    if share is None or now.step.index + 1 != max(steps_in(share, now.step.total), 1):
        return latents
    result, rows = latents.clone(), others(now, source)
    other = first[rows] / noise
    result[rows] = theirs[rows] + now.step.noise_after * other.to(latents)
    return result


def blended(
    latents: Tensor, notes: dict[Any, Any], now: Moment, source: Source, share: float | None
) -> Tensor:
    """After a step the source's latents where the subject is not."""
    if share is None or now.step.index != steps_in(share, now.step.total):
        return latents
    result, theirs = latents.clone(), now.latents_of(source, latents)
    for place in others(now, source):
        if maps := notes.get(("maps", now.images[place])):
            inside = onto(apart(smooth(mean(maps))[0]), latents, now.layout)
            result[place] = torch.where(inside, latents[place], theirs[place])
    return result
