"""The coupling to a pipeline's denoising loop, from outside: which prompt, which step, which rows,
and a change of the latents.

Three hooks, all removed on exit. ``encode_prompt`` tells the prompts and marks the start of a run.
A forward pre-hook of the denoiser sees every call with all its arguments. ``scheduler.step`` marks
the end of a step.

Changing latents z by d means feeding x + c d to the denoiser and z + d to the scheduler, where x =
c z is the scheduler's (linear) scaling of the model input.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from attncontrol.errors import CouplingError, UnsupportedError
from attncontrol.families.family import Family
from attncontrol.families.parts import default_encoding
from attncontrol.running.calls import DenoiserCall, Step, prediction_of, with_prediction
from attncontrol.running.refuse import require_visible_attention

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
    """Calls ``on_call`` before and ``on_done`` after every call of the denoiser; ``on_output``
    changes its prediction.

    A tensor returned by ``on_call`` at the first call of a step (one row per image, shaped as the
    latents) is added to the latents of all branches, in units of the network input x, for the rest
    of the step. Raises CouplingError on exit if the denoiser or the scheduler never ran.
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
        prompts = (
            [prompt] if isinstance(prompt, str) else prompt and list(prompt)
        )  # Z-Image writes into the caller's list
        repeats = bound.get("num_images_per_prompt") or bound.get("num_videos_per_prompt")
        others = {
            name: bound[name]
            for name in ("prompt_2", "prompt_3", "prompt_4")
            if bound.get(name) not in (None, prompt)
        }
        if others:
            raise UnsupportedError(
                f"{sorted(others)} differ from the prompt: words are located in one prompt for all encoders"
            )
        encoding = default_encoding(pipe) | bound
        vars(run).update(
            prompts=prompts,
            repeats=repeats,
            encoding=encoding,
            index=0,
            nth=0,
            change=None,
            started=True,
        )

    def before(
        _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
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
        call = replace(
            current, arguments=_named(denoiser, args, kwargs)
        )  # as later contexts changed them
        return with_prediction(output, on_output(call, prediction_of(output)))

    def on_step(bound: dict[str, Any]) -> None:
        if run.change is not None:
            bound["sample"] = (
                bound["sample"]
                + run.change.to(bound["sample"]).view_as(bound["sample"]) / run.scale
            )
        run.index, run.nth, run.change, run.steps = run.index + 1, 0, None, run.steps + 1

    with ExitStack() as stack:
        stack.callback(denoiser.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(denoiser.register_forward_hook(after, with_kwargs=True).remove)
        if on_done is not None:
            done = denoiser.register_forward_hook(lambda *_: on_done(), always_call=True)
            stack.callback(done.remove)
        if hasattr(pipe, "check_inputs"):
            stack.enter_context(observed(pipe, "check_inputs", on_start))
        stack.enter_context(observed(pipe, "encode_prompt", on_prompt))
        stack.enter_context(observed(scheduler, "step", on_step))
        yield
    if not run.calls or not run.steps:
        what = (
            "the denoiser was never called"
            if not run.calls
            else "scheduler.step was never called (was pipe.scheduler replaced inside?)"
        )
        raise CouplingError(
            f"{what}: call this pipeline ({type(pipe).__name__}) inside the with block"
        )


def _named(denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    names = [
        name for name, _ in zip(inspect.signature(denoiser.forward).parameters, args, strict=False)
    ]
    return dict(zip(names, args, strict=True)) | kwargs


def _describe(pipe: Any, family: Family, run: _Run, arguments: dict[str, Any]) -> DenoiserCall:
    scheduler, sample = pipe.scheduler, arguments[family.sample]
    timestep = torch.as_tensor(arguments[family.time]).flatten()[0]
    scaling = getattr(scheduler, "scale_model_input", None)
    scale = (
        1.0
        if scaling is None
        else float(scaling(torch.ones(1, dtype=torch.float64, device=sample[0].device), timestep))
    )
    if run.repeats is None and run.prompts is not None:  # encode_prompt was not told
        run.repeats = max(
            len(sample) // (len(run.prompts) * len(family.branches(pipe, run.nth, None))), 1
        )
    known = (
        None
        if run.prompts is None
        else tuple(p for p in run.prompts for _ in range(run.repeats or 1))
    )
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
    return DenoiserCall(
        step, run.nth, branches, images, arguments, family.sample, part, family.batch_axis
    )


@contextmanager
def observed(owner: Any, name: str, observe: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """``observe`` sees (and may change) the named arguments of every call of a method of one
    object. Undone on exit."""
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
