"""The coupling to a pipeline's denoising loop, from outside: which prompt, which step, which rows, and a change of the latents.

Three hooks, all removed on exit. ``encode_prompt`` tells the prompts and marks the start of a run. A forward pre-hook of the
denoiser sees every call with all its arguments. ``scheduler.step`` marks the end of a step.

Changing latents z by d means feeding x + c d to the denoiser and z + d to the scheduler, where x = c z is the scheduler's
(linear) scaling of the model input.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from attncontrol.errors import CouplingError, UnsupportedError
from attncontrol.families import Family

# Schedulers whose step ignores the sample it is given, or keeps an older one, so that a change of the latents would be lost.
_STATEFUL = ("UniPCMultistepScheduler", "DPMSolverSinglestepScheduler", "SASolverScheduler", "DPMSolverSDEScheduler")


@dataclass(frozen=True)
class Step:
    """One denoising step. ``scale`` is c in x = c z; ``prompts`` has one entry per image."""

    index: int
    total: int
    timestep: float
    scale: float
    prompts: tuple[str | None, ...]


@dataclass(frozen=True)
class DenoiserCall:
    """One forward of the denoiser. The batch consists of equal parts, one per branch, each with one row per image."""

    step: Step
    branches: tuple[str, ...]
    images: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def sample(self) -> Tensor:
        return self.kwargs["sample"] if "sample" in self.kwargs else self.args[0]

    def rows(self, branch: str) -> slice:
        start = self.branches.index(branch) * self.images
        return slice(start, start + self.images)

    def with_sample(self, sample: Tensor) -> "DenoiserCall":
        if "sample" in self.kwargs:
            return replace(self, kwargs=self.kwargs | {"sample": sample})
        return replace(self, args=(sample, *self.args[1:]))

    def select(self, rows: Tensor) -> "DenoiserCall":
        """The call on some rows: every tensor argument whose first axis is the batch is indexed."""
        size = self.sample.shape[0]

        def pick(value: Any) -> Any:
            batched = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == size
            return value[rows.to(value.device)] if batched else value

        return replace(self, args=tree_map(pick, self.args), kwargs=tree_map(pick, self.kwargs))


probing: ContextVar[bool] = ContextVar("probing", default=False)
"""True inside a gradient pass, which recorders must not see."""

OnCall = Callable[[DenoiserCall], Tensor | None]


@dataclass
class _Run:
    """Where the current run of the pipeline is."""

    prompts: list[str] | None = None
    repeats: int = 1
    index: int = 0
    change: Tensor | None = None
    fresh: bool = True
    calls: int = 0
    steps: int = 0
    scale: float = 1.0


@contextmanager
def follow(pipe: Any, family: Family, on_call: OnCall, on_done: Callable[[], None] | None = None) -> Iterator[None]:
    """Calls ``on_call`` before the denoiser's first call of every step, and ``on_done`` after each of its calls.

    A tensor returned by ``on_call`` (one row per image, latent channels) is added to the latents of all branches, in units of
    the network input x, for the rest of the step. Raises CouplingError on exit if the denoiser or the scheduler never ran.
    """
    denoiser, scheduler = family.denoiser(pipe), pipe.scheduler
    if hasattr(denoiser, "_orig_mod") or denoiser._compiled_call_impl is not None:
        raise UnsupportedError(
            f"{type(pipe).__name__} has a compiled denoiser, where hooks are ignored; pass the uncompiled pipeline"
        )
    run = _Run()

    def on_prompt(bound: dict[str, Any]) -> None:
        prompt = bound.get("prompt")
        prompts = [prompt] if isinstance(prompt, str) else prompt
        repeats = bound.get("num_images_per_prompt") or 1
        vars(run).update(prompts=prompts, repeats=repeats, index=0, change=None, fresh=True)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        call = _describe(pipe, family, run, args, kwargs)
        run.calls += 1
        if run.fresh:
            run.fresh, run.scale, run.change = False, call.step.scale, None
            run.change = on_call(call)
        if run.change is None:
            return args, kwargs
        x = call.sample.clone()
        channels = run.change.shape[1]
        x[:, :channels] += run.change.to(x).repeat(len(call.branches), 1, 1, 1)
        call = call.with_sample(x)
        return call.args, call.kwargs

    def on_step(bound: dict[str, Any]) -> None:
        if run.change is not None:
            bound["sample"] = bound["sample"] + run.change.to(bound["sample"]) / run.scale
        run.index, run.fresh, run.change, run.steps = run.index + 1, True, None, run.steps + 1

    with ExitStack() as stack:
        stack.callback(denoiser.register_forward_pre_hook(before, with_kwargs=True).remove)
        if on_done is not None:
            after = denoiser.register_forward_hook(lambda *_: on_done(), always_call=True)
            stack.callback(after.remove)
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


def require_linear_steps(scheduler: Any) -> None:
    """Raises UnsupportedError for schedulers that would drop a change of the latents."""
    name = type(scheduler).__name__
    if getattr(scheduler, "order", 1) != 1 or name in _STATEFUL:
        raise UnsupportedError(
            f"{name} takes several evaluations per step or keeps earlier latents, so a change of the latents would be lost; "
            "use DDIM, PNDM, Euler, DPMSolverMultistep or LMS: pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"
        )


def _describe(pipe: Any, family: Family, run: _Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DenoiserCall:
    scheduler = pipe.scheduler
    sample = kwargs["sample"] if "sample" in kwargs else args[0]
    timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
    timestep = torch.as_tensor(timestep).flatten()[0]
    scaling = getattr(scheduler, "scale_model_input", None)
    scale = 1.0 if scaling is None else float(scaling(torch.ones(1, dtype=torch.float64, device=sample.device), timestep))
    branches = family.branches(pipe)
    images, odd = divmod(sample.shape[0], len(branches))
    prompts = tuple(p for p in run.prompts for _ in range(run.repeats)) if run.prompts is not None else (None,) * images
    if odd or len(prompts) != images:
        raise CouplingError(
            f"the denoiser got a batch of {sample.shape[0]}, but {len(prompts)} images in the branches {branches} were expected; "
            f"{type(pipe).__name__} orders its batch in a way that is not known"
        )
    total = getattr(pipe, "num_timesteps", None) or len(scheduler.timesteps)
    return DenoiserCall(Step(run.index, total, float(timestep), scale, prompts), branches, images, args, kwargs)


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
