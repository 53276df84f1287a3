"""What the model attends to in a picture that exists: encoded, noised to a timestep, seen by one
forward of the conditional branch.

The noised picture x_t (module ``noise``) is what the denoiser is given, however the scheduler
scales the latents in between, so any timestep will do, not only those of a schedule.
"""

import functools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attncontrol.attention.between import Direction, related, sites_with
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Site, Where
from attncontrol.checks.arguments import Bytes, checked
from attncontrol.errors import WordError
from attncontrol.families.encoder import as_called
from attncontrol.families.family import Family
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.prompts.tokens import Span, Token
from attncontrol.prompts.words import Word, every_token, find, listed, require_word
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Hooks, Session, attach
from attncontrol.verbs import photo
from attncontrol.verbs.about import about, reductions
from attncontrol.verbs.noise import noise_per_signal, noised
from attncontrol.verbs.photo import Photo, Size
from attncontrol.verbs.room import bytes_of, require_room
from attncontrol.verbs.wish import Axis

Spans = tuple[tuple[Span, ...], ...]


@checked
def record_picture(
    pipe: Any,
    picture: Photo,
    prompt: str,
    words: Annotated[Sequence[Word] | None, WordError] = None,
    *,
    timestep: float,
    seed: int = 0,
    **options: Any,
) -> AttentionMaps:
    """The attention of a text-to-image pipeline on one picture, as ``record`` keeps it.

        maps = record_picture(pipe, Image.open("cat.jpg"), "a cat", ["cat"], timestep=300.0)
        maps.show("cat")

    ``picture`` is a PIL image or an array of any size: ``photo.fitted`` makes it smaller if it is
    longer than those of the model, and crops it to whole patches; ``size`` (height, width) in
    pixels chooses another size. ``maps.pictures`` is what the model saw. ``options`` are those of
    ``record_pictures`` and of the pipeline's call.
    """
    named = None if words is None else [words]
    return record_pictures(
        pipe, [picture], [prompt], named, timestep=timestep, seed=seed, **options
    )


@checked
@torch.no_grad()
def record_pictures(
    pipe: Any,
    pictures: Sequence[Photo],
    prompts: Sequence[str],
    words: Annotated[Sequence[Sequence[Word]] | None, WordError] = None,
    *,
    timestep: float,
    seed: int = 0,
    size: Size | None = None,
    where: Where | None = None,
    direction: Direction = "image->text",
    keep: Collection[Axis] = (),
    limit: Bytes = 4.0 * 2**30,
    **call: Any,
) -> AttentionMaps:
    """The same for several pictures, each with its prompt and words (all tokens if None); see
    ``record``. They have one shape, or ``size`` gives it to them.

    ``call`` goes to the pipeline, see ``noised_call``. The denoiser runs once, and other contexts
    do not see it. Raises WordError, SiteError; SizeError if the maps would hold more than ``limit``
    bytes (float32), before it runs; SchedulerError if the scheduler's noise is not known.
    """
    run = _attached(pipe)
    sites = sites_with(tuple(run.sites.values()), direction, where)
    shown = photo.batch(pipe, pictures, size, call)
    size = (shown[0].shape[0], shown[0].shape[1])
    part = noised_call(pipe, shown, prompts, timestep=timestep, seed=seed, size=size, **call)
    tokens = tuple(part.text.tokens(image) for image in range(len(prompts)))
    spans = _spans(direction, prompts, tokens, words)
    longest = max(map(len, spans), default=0)
    size_of_one = bytes_of(run, part, sites, direction, longest, "head" in keep)
    require_room(size_of_one * len(shown), limit)
    return AttentionMaps(
        layers=_probe(run, part, sites, spans, direction, "head" in keep),
        sites=sites,
        prompts=tuple(prompts),
        tokens=tokens,
        spans=spans,
        branches=("cond",),
        steps=(0,),
        timesteps=(timestep,),
        sigmas=(noise_per_signal(pipe.scheduler, timestep),),
        direction=direction,
        reductions=reductions(frozenset(keep), direction),
        about=about(pipe, part.step) | {"picture": True, "seed": seed, "steps": 1},
        pictures=tuple(map(Image.fromarray, shown)),
    )


@checked
@torch.no_grad()
def noised_call(
    pipe: Any,
    pictures: Sequence[Photo],
    prompts: Sequence[str],
    *,
    timestep: float,
    seed: int = 0,
    size: Size | None = None,
    **call: Any,
) -> DenoiserCall:
    """The call of the denoiser on pictures noised to a timestep, conditional rows alone:
    for ``Session.forward``.

    Pictures are fitted to the model, see ``photo.fitted``; ``size`` is (height, width) in pixels.
    Picture i has the noise of ``seed`` + i, so batches do not matter. ``call`` goes to the
    pipeline, which is stopped before it calls the denoiser. Raises SettingError for pictures of
    several shapes.
    """
    run, found = _attached(pipe), []
    shown = photo.batch(pipe, pictures, size, call)
    noisy = _noisy(pipe, run.family, shown, timestep, seed)

    def before(step: DenoiserCall) -> None:
        if "cond" in step.branches:
            part = step.of("cond", range(len(pictures)))
            found.append(part.with_latents(noisy.to(step.latents)))
            raise _Done

    height, width = shown[0].shape[:2]
    arguments = {"num_inference_steps": 10, "output_type": "latent"} | call
    arguments |= {"prompt": as_called(pipe, prompts), "height": height, "width": width}
    alone = run.hooked(Hooks(before=before), alone=True)
    with suppress(_Done), _only(pipe.scheduler, timestep), _without_bar(pipe), alone:
        pipe(generator=torch.Generator().manual_seed(0), **arguments)
    return found[0]


def _attached(pipe: Any) -> Session:
    """Raises ModelError for families that cannot be given pictures."""
    run = attach(pipe)
    run.family.require_encode(pipe)
    return run


@contextmanager
def _without_bar(pipe: Any) -> Iterator[None]:
    """The pipeline is stopped before its first step: no bar that never moves."""
    own = vars(pipe).get("_progress_bar_config")
    pipe.set_progress_bar_config(**(own or {}) | {"disable": True})
    try:
        yield
    finally:
        if own is None:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = own


class _Done(Exception):  # noqa: N818 - a signal, not an error
    """Ends the pipeline's run."""


def _noisy(
    pipe: Any, family: Family, pictures: Sequence[np.ndarray], timestep: float, seed: int
) -> Tensor:
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    clean = family.clean(pipe, pixels)
    noise = [
        torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(seed + i))
        for i in range(len(clean))
    ]
    return noised(pipe.scheduler, clean, torch.stack(noise).to(clean.device), timestep)


def _spans(
    direction: Direction,
    prompts: Sequence[str],
    tokens: Sequence[tuple[Token, ...]],
    words: Sequence[Sequence[Word]] | None,
) -> Spans:
    if direction == "image->image":
        return ((),) * len(prompts)
    if words is None:
        return every_token(tokens)
    named = zip(tokens, prompts, words, strict=True)
    return tuple(
        tuple(find(read, prompt, require_word(word)) for word in listed(of))
        for read, prompt, of in named
    )


def _probe(
    run: Session, part: DenoiserCall, sites: dict[str, Site], spans: Spans, direction: Direction,
    heads: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """One forward of the denoiser; nothing else sees it."""
    layers: dict[str, Tensor] = {}
    groups = [[span.positions for span in of_image] for of_image in spans]

    def keep(call: AttentionCall, now: Moment) -> Tensor:
        output, call = call.run_with_normaliser()
        found = related(call, now.layout, groups, direction)
        kept = found if heads else found.mean(1, keepdim=True)
        layers[call.site.name] = kept.float()[:, None, None].cpu()
        return output

    run.forward(part, "probe", sites=sites, listen=keep)
    return {name: layers[name] for name in sites if name in layers}


@contextmanager
def _only(scheduler: Any, timestep: float) -> Iterator[None]:
    """Every schedule that the pipeline asks for has this timestep alone, as often as it has
    steps."""
    set_timesteps, previous = scheduler.set_timesteps, vars(scheduler).get("set_timesteps")

    @functools.wraps(set_timesteps)  # pipelines inspect its signature
    def replaced(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        dtype = scheduler.timesteps.dtype if float(timestep).is_integer() else torch.float32
        scheduler.timesteps = torch.full_like(scheduler.timesteps, timestep, dtype=dtype)

    scheduler.set_timesteps = replaced
    try:
        yield
    finally:
        if previous is None:
            del scheduler.set_timesteps
        else:
            scheduler.set_timesteps = previous
