"""A pipeline that evaluates its denoiser where somebody else says, in its own loop: so prompts,
guidance, sizes and schedules are those of the pipeline."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attncontrol.attention.source import Facts
from attncontrol.errors import SettingError
from attncontrol.inversion._schedule import Looks, Schedule, schedule_of
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.observers import replaced
from attncontrol.running.session import Hooks, Session
from attncontrol.running.sources import facts_of

Way = Callable[[Tensor, Schedule], Looks]
"""From the latents where it begins, which are the first that are looked at."""


@dataclass(eq=False)
class Driven:
    """What came of a run."""

    run: Session
    way: Way
    start: Tensor
    backward: bool = False
    decodes: bool = False
    schedule: Schedule | None = None
    facts: Facts | None = None
    looks: Looks | None = None
    scale: float = 1.0
    path: list[Tensor] = field(default_factory=list)

    def set_timesteps(self, scheduler: Any) -> None:
        """The timesteps become those that are looked at."""
        self.schedule = schedule_of(scheduler)
        times = rehearsed(self.way, self.schedule)
        own = scheduler.timesteps
        whole = all(map(float.is_integer, times))
        dtype = own.dtype if whole or own.is_floating_point() else torch.float32
        scheduler.timesteps = torch.tensor(times, dtype=dtype, device=own.device)
        self.looks = self.way(self.start, self.schedule)
        self.scale = next(self.looks).scale

    def starts(self, latents: Tensor) -> Tensor:
        """Instead of random ones. Raises SettingError where these are of another size."""
        if latents.shape != self.start.shape:
            pipe, own = self.run.pipe, [*self.start.shape[1:]]
            raise SettingError(
                f"latents of the picture are {own}, {type(pipe).__name__} makes some of "
                f"{[*latents.shape[1:]]}: give a size that it makes{any_size(pipe)}"
            )
        return self.start.to(latents)

    def step(self, prediction: Tensor, sample: Tensor) -> "_Stepped":
        """The latents of the next look. In the end raises the signal of it, or gives those of the
        picture if somebody looks at that."""
        assert self.looks is not None  # set with the timesteps
        try:
            latents, self.scale, _ = self.looks.send(prediction.to(self.start))
        except StopIteration as end:
            self.path = end.value
            latents = self.path[0]
        latents = latents.to(sample).contiguous()
        if self.backward:
            self.run.contexts.went_back(sample, latents)
        if not self.path:
            return _Stepped(latents)
        if not self.decodes:
            raise _Done
        picture = self.path[-1].to(sample)
        self.run.contexts.track.ended_back(picture)
        return _Stepped(picture)

    def before(self, call: DenoiserCall) -> None:
        if call.is_first:
            self.facts = facts_of(self.run.contexts, call)


def driven(
    run: Session,
    way: Way,
    start: Tensor,
    call: Mapping[str, Any],
    fed: Callable[[DenoiserCall], DenoiserCall] | None = None,
    *,
    backward: bool = False,
) -> Driven:
    """Calls the pipeline. Other contexts do not see it; if it is ``backward``, from the picture to
    noise with one look a step, those that hook into it both ways do. Latents lie in memory as in a
    trajectory, so that models round alike on the way back."""
    start = start.contiguous()
    one = Driven(run, way, start, backward, backward and run.decodes)
    hooks = Hooks(before=one.before, starts=one.starts, fed=fed, backward=backward)
    decoded = {"output_type": "pt"} if one.decodes else {}
    with suppress(_Done), run.hooked(hooks, alone=True), _deceived(run.pipe.scheduler, one):
        run.pipe(**{**call, **decoded})
    return one


def any_size(pipe: Any) -> str:
    """What a call of pipelines that choose a size near the given one is to have."""
    known = inspect.signature(type(pipe).__call__).parameters
    return ", with use_resolution_binning=False" if "use_resolution_binning" in known else ""


def rehearsed(way: Way, schedule: Schedule) -> list[float]:
    """The timesteps that are looked at."""
    looks, times = way(torch.zeros(1, 1), schedule), []
    with suppress(StopIteration):
        look = next(looks)
        while True:
            times.append(look.timestep)
            look = looks.send(torch.zeros_like(look.latents))
    return times


class _Stepped(NamedTuple):
    """What a scheduler returns, as a tuple and by name."""

    prev_sample: Tensor


class _Done(Exception):  # noqa: N818 - a signal, not an error
    """Ends the pipeline's run."""


@contextmanager
def _deceived(scheduler: Any, one: Driven) -> Iterator[None]:
    """The methods of a scheduler do what is said, until the block ends."""

    def setting(method: Any) -> Any:
        @functools.wraps(method)  # pipelines inspect signatures
        def set_timesteps(*args: Any, **kwargs: Any) -> None:
            method(*args, **kwargs)
            one.set_timesteps(scheduler)

        return set_timesteps

    def stepping(method: Any) -> Any:
        @functools.wraps(method)
        def step(model_output: Tensor, _: Any, sample: Tensor, *__: Any, **___: Any) -> Any:
            return one.step(model_output, sample)

        return step

    def scaling(_: Any) -> Any:
        return lambda sample, *_, **__: sample * one.scale

    standing_in = {"set_timesteps": setting, "step": stepping, "scale_model_input": scaling}
    kept = {name: vars(scheduler)[name] for name in _STATE if name in vars(scheduler)}
    try:
        with ExitStack() as stack:
            for name, made in standing_in.items():
                if hasattr(scheduler, name):
                    stack.enter_context(replaced(scheduler, name, made))
            yield
    finally:
        for name, value in kept.items():
            setattr(scheduler, name, value)


_STATE = ("timesteps", "sigmas", "num_inference_steps", "_step_index", "_begin_index")
"""Of a schedule; a run of the pipeline sets it anew."""
