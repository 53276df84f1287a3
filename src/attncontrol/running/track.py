"""Which run of the pipeline it is, and where in it: prompts, seeds, steps, views and rows."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.moment import Step
from attncontrol.errors import CouplingError
from attncontrol.families.family import Family
from attncontrol.families.parts import default_encoding, told_by
from attncontrol.prompts.text import Text
from attncontrol.running.calls import DenoiserCall, noisy
from attncontrol.running.further import Further
from attncontrol.running.heard import Hearing
from attncontrol.running.own import argument_of_run
from attncontrol.running.reading import NAMES, Ids, embeds_of, ids_of, prompts_of, text_of_run
from attncontrol.running.solvers import noise_at, require_whole, stage_of, steps_among

_OF_RUN = ("num_images_per_prompt", "negative_prompt", "max_sequence_length", "images")


@dataclass(eq=False)
class Track:
    """Where one run of a pipeline is. ``index`` counts denoising steps, ``stage`` the evaluations
    within one and ``evaluation`` all of them, ``view`` the parts of the picture within one, ``nth``
    the calls of the denoiser before the scheduler's next step.

    ``place`` is that of the step in the scheduler's timesteps, ``noise`` that before it.
    ``changes`` of the latents, in units of the network input, hold until its end; ``edited`` is
    what contexts changed, by view, of what the scheduler returned, ``moved`` both, in latents.
    ``views`` are the most of them that a step had so far. ``received`` are the rows of ids that
    reached each text encoder, ``heard`` those of the block. ``further`` are texts of edits,
    ``kept`` what these keep during the run; ``call`` is the last one of the denoiser, ``before``
    and ``latents`` are those before and after the last step of the scheduler, ``drawn`` those that
    others took the place of. ``state`` is that of a modular pipeline, ``conditions`` the branches
    of the calls of a step, as its guider says. ``backward`` runs go from a picture to noise, with
    one evaluation for each step of a run.
    """

    prompts: list[str] | None = None
    repeats: int | None = None
    encoding: Mapping[str, Any] = field(default_factory=dict)
    received: dict[str, list[Ids]] = field(default_factory=dict)
    heard: Hearing = field(default_factory=Hearing)
    thread: int | None = None
    index: int = 0
    stage: int = 0
    evaluation: int = 0
    view: int = 0
    views: int = 1
    nth: int = 0
    time: float | None = None
    stepped: bool = False
    text: Text | None = None
    place: int = 0
    noise: float = 1.0
    changes: list[Tensor] = field(default_factory=list)
    edited: dict[int, Tensor] = field(default_factory=dict)
    moved: Tensor | None = None
    scale: float = 1.0
    further: Further | None = None
    kept: dict[int, dict[Any, Any]] = field(default_factory=dict)
    call: DenoiserCall | None = None
    before: Tensor | None = None
    latents: Tensor | None = None
    drawn: Tensor | None = None
    state: Any = None
    conditions: tuple[str, ...] = ()
    backward: bool = False

    def again(self, pipe: Any, bound: Mapping[str, Any]) -> None:
        """A further call of ``encode_prompt``, whose prompt is the negative one if it takes one
        alone; else another encoder reads the same."""
        if "negative_prompt" in inspect.signature(getattr(type(pipe), told_by(pipe)[0])).parameters:
            return
        others = {f"negative_{name}": bound[name] for name in NAMES if name in bound}
        others["negative_prompt_embeds"] = bound.get("prompt_embeds")
        self.encoding = {**self.encoding, **others}

    def move(self, pipe: Any, time: float) -> None:
        """To the next call of the denoiser, whose timestep is ``time``.

        The same timestep after a step of the scheduler is another view of the picture, unless the
        schedule itself has it twice, as those of second-order solvers do, and all views were seen.
        """
        if self.time is not None and not self.stepped:
            self.nth += 1
        elif self.time is not None:
            self.nth, self.changes = 0, []
            same = time == self.time
            if same and (self.view + 1 < self.views or not _repeated(pipe.scheduler, self.place)):
                self.view += 1
            else:
                self.view, self.stage = 0, stage_of(pipe.scheduler)
                self.evaluation += 1
                self.index += not self.stage
            self.views = max(self.views, self.view + 1)
        if self.nth == self.view == 0:
            self.place = place_in(pipe.scheduler, time)
        self.time, self.stepped = time, False

    def start(self, sample: Tensor) -> Tensor:
        """The latents that the scheduler is given: ``sample`` with all changes of this step."""
        start, self.moved = sample, self.edited.pop(self.view, None)
        for change in reversed(self.changes):
            require_whole(change, sample)
            own = change.to(sample).view_as(sample) / self.scale
            start = start + own
            self.moved = own if self.moved is None else self.moved + own
        if not self.stage:
            self.before = start
        self.stepped, self.changes = True, []
        return start

    def change_to(self, latents: Tensor) -> None:
        """What an edit makes of the latents that the scheduler returned."""
        before = self.latents
        if before is not None and latents is not before:
            edited = latents - before
            known = self.edited.get(self.view)
            self.edited[self.view] = edited if known is None else known + edited
            self.latents = latents

    def ended_back(self, latents: Tensor) -> None:
        """What a run to noise ends with is the picture, as after the last step of one from it."""
        assert self.call is not None  # it ran
        step = self.call.step
        last = replace(step, index=step.total - 1, evaluation=step.total - 1, backward=False)
        self.call, self.latents = replace(self.call, step=last), latents


def begun(pipe: Any, bound: Mapping[str, Any]) -> Track:
    """A run, from the arguments with which the pipeline calls its ``encode_prompt``."""
    if "check_inputs" in told_by(pipe):  # which is not told them
        of_run = {name: argument_of_run(pipe, name) for name in _OF_RUN}
        told = {name: value for name, value in of_run.items() if value is not None}
        bound = {**told, **bound}
    repeats = bound.get("num_images_per_prompt") or bound.get("num_videos_per_prompt")
    own = {name: list(value) if isinstance(value, list) else value for name, value in bound.items()}
    return Track(repeats=repeats, encoding=default_encoding(pipe) | own, prompts=prompts_of(own))


def seeds_of(bound: Mapping[str, Any]) -> tuple[int, ...]:
    """Those of the generators in the arguments of a run."""
    given = bound.get("generator")
    generators = given if isinstance(given, list) else [] if given is None else [given]
    return tuple(generator.initial_seed() for generator in generators)


def described(pipe: Any, family: Family, track: Track, arguments: dict[str, Any]) -> DenoiserCall:
    """The call of the denoiser that comes now. Raises CouplingError if its rows are not known."""
    if missing := [name for name in (family.sample, family.time) if name not in arguments]:
        raise CouplingError(
            f"the denoiser, a {type(family.denoiser(pipe)).__name__}, was called without "
            f"{missing[0]} by that name, so its rows are not known"
        )
    scheduler, denoiser, sample = pipe.scheduler, family.denoiser(pipe), arguments[family.sample]
    timestep = torch.as_tensor(arguments[family.time]).max()  # frames that are given are at zero
    track.move(pipe, float(timestep))
    branches, images = _rows(pipe, family, track, len(sample), arguments)
    scale = 1.0
    if hasattr(scheduler, "scale_model_input"):
        one = torch.ones(1, dtype=torch.float64, device=noisy(sample[0]).device)
        scale = float(scheduler.scale_model_input(one, timestep))
    evaluations = _total(pipe, track)
    total = steps_among(scheduler, evaluations)
    place = track.index, total, float(timestep), scale, track.encoding, track.view
    at = min(track.place, len(scheduler.timesteps) - 1)
    noises, stage = (noise_at(scheduler, at), noise_at(scheduler, at + 1)), track.stage
    counts, in_turn = (stage, track.evaluation, evaluations), bool(family.running(denoiser))
    step = Step(*place, track.kept, *noises, *counts, in_turn=in_turn)
    if track.backward:
        step = _turned(step, scheduler)
    if not stage:
        track.noise = step.noise
    part = family.latents(denoiser, arguments)
    assert track.text is not None  # set with the rows
    return DenoiserCall(
        step, track.text, track.nth, branches, tuple(range(images)), arguments, family.sample, part,
        family.batch_axis, rows_of=family.rows_of,
    )  # fmt: skip


def _turned(step: Step, scheduler: Any) -> Step:
    """The step of a run that goes the other way."""
    at, index = step.index, step.total - 1 - step.index
    noise, after = noise_at(scheduler, at), noise_at(scheduler, at - 1) if at else 0.0
    one = replace(step, index=index, evaluation=index, noise=noise, noise_after=after)
    return replace(one, backward=True)


def _rows(
    pipe: Any, family: Family, track: Track, size: int, arguments: Mapping[str, Any]
) -> tuple[tuple[str, ...], int]:
    """The branches of a batch of ``size`` rows, and the images in each."""
    prompts = track.prompts
    if track.repeats is None and prompts is not None:  # encode_prompt was not told
        parts = len(_branches(pipe, family, track, None))
        track.repeats = max(size // (len(prompts) * parts), 1)
    repeats = range(track.repeats or 1)
    known = None if prompts is None else tuple(p for p in prompts for _ in repeats)
    branches = _branches(pipe, family, track, None if known is None else size // len(known))
    images, odd = divmod(size, len(branches)) if branches else (0, 1)
    if odd or (known is not None and len(known) != images):
        raise CouplingError(
            f"the denoiser got a batch of {size}, but {images if known is None else len(known)} "
            f"images in the branches {branches} were expected; {type(pipe).__name__} orders its "
            "batch in a way that is not known"
        )
    if track.text is None:
        if rows := ids_of(arguments.get("input_ids")):  # the denoiser embeds them itself
            track.received["transformer"] = rows
        told = track.encoding or embeds_of(arguments, branches, images)
        track.text = text_of_run(pipe, family, told, track.received, images, track.heard.told())
    return branches, images


def _branches(pipe: Any, family: Family, track: Track, parts: int | None) -> tuple[str, ...]:
    if track.conditions:
        return track.conditions[track.nth : track.nth + 1]
    return family.branches(pipe, track.nth, parts)


def _total(pipe: Any, track: Track) -> int:
    """The number of evaluations of the run, which may be the last ones of a schedule."""
    if track.state is not None and track.state.get("timesteps") is not None:
        return len(track.state.get("timesteps"))
    return getattr(pipe, "num_timesteps", None) or len(pipe.scheduler.timesteps)


def _repeated(scheduler: Any, place: int) -> bool:
    """Whether the schedule has the timestep of a place once more in the next."""
    times = scheduler.timesteps
    return place + 1 < len(times) and bool(times[place] == times[place + 1])


def place_in(scheduler: Any, time: float) -> int:
    """Where among its timesteps the scheduler is, before the step from ``time``: as it finds it
    itself, for a run of a part of them; else, told ``time`` in shares of 1, at the beginning."""
    for name in ("step_index", "begin_index"):
        if (index := getattr(scheduler, name, None)) is not None:
            return int(index)
    times = torch.as_tensor(scheduler.timesteps, dtype=torch.float64)
    place = int((times - time).abs().argmin())
    of_shares = time <= 1 < times.max() and hasattr(scheduler, "begin_index")
    return 0 if of_shares or abs(float(times[place]) - time) > 0.01 * abs(time) else place
