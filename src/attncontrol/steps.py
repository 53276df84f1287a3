"""The coupling to a pipeline's denoising loop, from outside: which prompt, which step, which rows, and a change of the latents.

Three hooks, all removed on exit. ``encode_prompt`` tells the prompts and marks the start of a run. A forward pre-hook of the
denoiser sees every call with all its arguments. ``scheduler.step`` marks the end of a step.

Changing latents z by d means feeding x + c d to the denoiser and z + d to the scheduler, where x = c z is the scheduler's
(linear) scaling of the model input.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from attncontrol.errors import CouplingError, UnsupportedError
from attncontrol.families import Family, default_encoding
from attncontrol.supported import require_visible_attention


@dataclass(frozen=True)
class Step:
    """One denoising step. ``scale`` is c in x = c z; ``prompts`` has one entry per image.

    ``encoding`` are the arguments with which the pipeline called its ``encode_prompt``.
    """

    index: int
    total: int
    timestep: float
    scale: float
    prompts: tuple[str | None, ...]
    encoding: Mapping[str, Any]


@dataclass(frozen=True)
class DenoiserCall:
    """The ``nth`` forward of the denoiser in a step, its arguments by name.

    The batch has equal parts, one per branch, with one row per image each. ``part`` is the part of the noisy input, argument
    ``name``, that is denoised. ``batch_axis`` is that of the family. Models that take a list of rows take lists only.
    """

    step: Step
    nth: int
    branches: tuple[str, ...]
    images: int
    arguments: dict[str, Any]
    name: str
    part: tuple[slice, ...]
    batch_axis: Mapping[str, int | None]

    @property
    def latents(self) -> Tensor:
        """The scaled latents x of all rows."""
        return self._sample[self.part]

    @property
    def _sample(self) -> Tensor:
        sample = self.arguments[self.name]
        return torch.stack(sample) if isinstance(sample, list) else sample

    def rows(self, branch: str) -> slice:
        start = self.branches.index(branch) * self.images
        return slice(start, start + self.images)

    def with_latents(self, latents: Tensor) -> "DenoiserCall":
        sample = self._sample.clone()
        sample[self.part] = latents.to(sample.dtype)
        listed = isinstance(self.arguments[self.name], list)
        return replace(self, arguments=self.arguments | {self.name: list(sample) if listed else sample})

    def select(self, rows: Tensor) -> "DenoiserCall":
        """The call on some rows: every tensor argument that has a batch axis is indexed."""
        size, listed = len(self.arguments[self.name]), isinstance(self.arguments[self.name], list)

        def pick(value: Any, axis: int) -> Any:
            if isinstance(value, Tensor) and value.ndim > axis and value.shape[axis] == size:
                return value.index_select(axis, rows.to(value.device))
            return [value[i] for i in rows] if listed and isinstance(value, list) and len(value) == size else value

        picked = dict(self.arguments)
        for name, value in self.arguments.items():
            axis = self.batch_axis.get(name, 0)
            if axis is not None:
                picked[name] = tree_map(functools.partial(pick, axis=axis), value, is_leaf=lambda v: listed and isinstance(v, list))
        return replace(self, arguments=picked)


probing: ContextVar[bool] = ContextVar("probing", default=False)
"""True inside a gradient pass, which recorders must not see."""


@contextmanager
def aside() -> Iterator[None]:
    """For forwards of the denoiser that are not the pipeline's own."""
    token = probing.set(True)
    try:
        yield
    finally:
        probing.reset(token)


OnCall = Callable[[DenoiserCall], Tensor | None]
OnOutput = Callable[[DenoiserCall, Tensor], Tensor]


@dataclass
class _Run:
    """Where the current run of the pipeline is."""

    prompts: list[str] | None = None
    repeats: int | None = None
    encoding: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0
    nth: int = 0
    change: Tensor | None = None
    started: bool = False
    calls: int = 0
    steps: int = 0
    scale: float = 1.0


@contextmanager
def follow(
    pipe: Any,
    family: Family,
    on_call: OnCall,
    on_done: Callable[[], None] | None = None,
    on_output: OnOutput | None = None,
) -> Iterator[None]:
    """Calls ``on_call`` before and ``on_done`` after every call of the denoiser; ``on_output`` changes its prediction.

    A tensor returned by ``on_call`` at the first call of a step (one row per image, shaped as the latents) is added to the latents
    of all branches, in units of the network input x, for the rest of the step. Raises CouplingError on exit if the denoiser or
    the scheduler never ran.
    """
    denoiser, scheduler = family.denoiser(pipe), pipe.scheduler
    require_visible_attention(pipe, denoiser)
    run = _Run()
    current: DenoiserCall | None = None

    def on_start(_: dict[str, Any]) -> None:
        run.started = False

    def on_prompt(bound: dict[str, Any]) -> None:
        if run.started:  # a second encoder, or the negative prompt
            return
        prompt = bound.get("prompt")
        prompts = [prompt] if isinstance(prompt, str) else prompt and list(prompt)  # Z-Image writes into the caller's list
        repeats = bound.get("num_images_per_prompt") or bound.get("num_videos_per_prompt")
        others = {name: bound[name] for name in ("prompt_2", "prompt_3", "prompt_4") if bound.get(name) not in (None, prompt)}
        if others:
            raise UnsupportedError(f"{sorted(others)} differ from the prompt: words are located in one prompt for all encoders")
        encoding = default_encoding(pipe) | bound
        vars(run).update(prompts=prompts, repeats=repeats, encoding=encoding, index=0, nth=0, change=None, started=True)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        nonlocal current
        current = call = _describe(pipe, family, run, _named(denoiser, args, kwargs))
        run.calls, run.started = run.calls + 1, False
        if run.nth == 0:
            run.scale, run.change = call.step.scale, None
        change = on_call(call)
        run.change = change if run.nth == 0 else run.change
        run.nth += 1
        if run.change is None:
            return args, kwargs
        change = run.change.repeat(len(call.branches), *[1] * (run.change.ndim - 1))
        return (), call.with_latents(call.latents + change.to(call.latents)).arguments

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if on_output is None or current is None:
            return output
        call = replace(current, arguments=_named(denoiser, args, kwargs))  # as later contexts changed them
        return _with_prediction(output, on_output(call, prediction_of(output)))

    def on_step(bound: dict[str, Any]) -> None:
        if run.change is not None:
            bound["sample"] = bound["sample"] + run.change.to(bound["sample"]).view_as(bound["sample"]) / run.scale
        run.index, run.nth, run.change, run.steps = run.index + 1, 0, None, run.steps + 1

    with ExitStack() as stack:
        stack.callback(denoiser.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(denoiser.register_forward_hook(after, with_kwargs=True).remove)
        if on_done is not None:
            done = denoiser.register_forward_hook(lambda *_: on_done(), always_call=True)
            stack.callback(done.remove)
        if hasattr(pipe, "check_inputs"):
            stack.enter_context(_observed(pipe, "check_inputs", on_start))
        stack.enter_context(_observed(pipe, "encode_prompt", on_prompt))
        stack.enter_context(_observed(scheduler, "step", on_step))
        yield
    if not run.calls or not run.steps:
        what = (
            "the denoiser was never called"
            if not run.calls
            else "scheduler.step was never called (was pipe.scheduler replaced inside?)"
        )
        raise CouplingError(f"{what}: call this pipeline ({type(pipe).__name__}) inside the with block")


def prediction_of(output: Any) -> Tensor:
    """What a denoiser predicts, from the tuple or model output that it returns; lists of rows are stacked."""
    first = output[0]
    return torch.stack(first) if isinstance(first, list) else first


def _with_prediction(output: Any, prediction: Tensor) -> Any:
    first = list(prediction) if isinstance(output[0], list) else prediction
    if isinstance(output, tuple):
        return first, *output[1:]
    return type(output)(**{**output, next(iter(output)): first})


def _named(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [name for name, _ in zip(inspect.signature(denoiser.forward).parameters, args, strict=False)]
    return dict(zip(names, args, strict=True)) | kwargs


def _describe(pipe: Any, family: Family, run: _Run, arguments: dict[str, Any]) -> DenoiserCall:
    scheduler, sample = pipe.scheduler, arguments[family.sample]
    timestep = torch.as_tensor(arguments[family.time]).flatten()[0]
    scaling = getattr(scheduler, "scale_model_input", None)
    scale = 1.0 if scaling is None else float(scaling(torch.ones(1, dtype=torch.float64, device=sample[0].device), timestep))
    if run.repeats is None and run.prompts is not None:  # encode_prompt was not told
        run.repeats = max(len(sample) // (len(run.prompts) * len(family.branches(pipe, run.nth, None))), 1)
    known = None if run.prompts is None else tuple(p for p in run.prompts for _ in range(run.repeats or 1))
    branches = family.branches(pipe, run.nth, None if known is None else len(sample) // len(known))
    images, odd = divmod(len(sample), len(branches))
    prompts = known or (None,) * images
    if odd or len(prompts) != images:
        raise CouplingError(
            f"the denoiser got a batch of {len(sample)}, but {len(prompts)} images in the branches {branches} were expected; "
            f"{type(pipe).__name__} orders its batch in a way that is not known"
        )
    total = getattr(pipe, "num_timesteps", None) or len(scheduler.timesteps)
    step = Step(run.index, total, float(timestep), scale, prompts, run.encoding)
    part = family.latents(family.denoiser(pipe), arguments)
    return DenoiserCall(step, run.nth, branches, images, arguments, family.sample, part, family.batch_axis)


@contextmanager
def _observed(owner: Any, name: str, observe: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """``observe`` sees (and may change) the named arguments of every call of a method of one object. Undone on exit."""
    method = getattr(owner, name)
    previous = vars(owner).get(name)
    signature = inspect.signature(method)

    @functools.wraps(method)  # pipelines inspect the signature of scheduler.step
    def observing(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        observe(bound.arguments)
        return method(*bound.args, **bound.kwargs)

    setattr(owner, name, observing)
    try:
        yield
    finally:
        if previous is None:
            delattr(owner, name)
        else:
            setattr(owner, name, previous)
