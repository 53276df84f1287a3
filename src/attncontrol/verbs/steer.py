"""``steer``: move the latents against the gradient of an objective while any pipeline samples."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.intercept import tap
from attncontrol.attention.sites import Where
from attncontrol.errors import NonFiniteError, UnsupportedError
from attncontrol.families.known import family_of
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective, Sum, terms_of
from attncontrol.prompts.tokens import Subject
from attncontrol.running.calls import DenoiserCall, aside
from attncontrol.running.follow import follow
from attncontrol.running.refuse import require_linear_steps, require_true_gradients
from attncontrol.verbs.looking import Seen, View, sites_among_cells


@dataclass(frozen=True)
class TraceStep:
    """Losses per image before the update of a step, and the number of refinements each image
    took."""

    index: int
    timestep: float
    losses: tuple[float, ...]
    refinements: tuple[int, ...]


@dataclass
class Trace:
    """What a steered run did, step by step, and the settings it used."""

    where: Where
    step_size: float
    subjects: tuple[tuple[Subject, ...], ...] = ()
    steps: list[TraceStep] = field(default_factory=list)


@contextmanager
def steer(
    pipe: Any,
    objective: Objective | Sum,
    *,
    where: Where | None = None,
    descent: Descent | None = None,
) -> Iterator[Trace]:
    """Test-time guidance: in the guided steps, x <- x - alpha_i grad L(maps(x)) before the
    pipeline's own denoiser call.

    The gradient pass runs the conditional branch only, stops the denoiser after the last site of
    ``where``, and computes the loss in float32 or wider. Each image descends on its own loss.
    ``where`` and the step size default to the family's measured values, ``descent`` to the
    objective's. The words of the objective (None: the nouns of the prompt) are located in the
    prompt that the pipeline is called with.

    Yields a Trace. Raises WordError, SiteError, UnsupportedError (scheduler, attention backend),
    NonFiniteError, and CouplingError if the pipeline was not called inside the block.
    """
    family = family_of(pipe)
    require_linear_steps(pipe.scheduler)
    denoiser = family.denoiser(pipe)
    known = family.sites(denoiser)
    if isinstance(family.steering, str):
        raise UnsupportedError(
            f"{type(pipe).__name__} can be recorded, not steered: {family.steering}"
        )
    default_where, default_step = family.steering(known)
    where = where or default_where
    sites = {site.name: site for site in where.select(known)}
    schedule: Descent = getattr(objective, "descent", Descent()) if descent is None else descent
    if schedule.thresholds and any(
        getattr(term, "compares", False) for _, term in terms_of(objective)
    ):
        raise UnsupportedError(
            "an objective that compares with the first picture takes no refinement: Descent(thresholds={})"
        )
    trace = Trace(where, default_step if schedule.step_size is None else schedule.step_size)

    def view_of(of: Objective | Sum) -> View:
        pictures, features = (
            sites_among_cells(of, wanted, sites.values(), known)
            for wanted in ("self_attention", "features")
        )
        return View(denoiser, family, sites, of, pictures=pictures, features=features)

    view, search = view_of(objective), getattr(objective, "search", None)
    views = [view, *([] if search is None else [view_of(search.objective)])]

    def on_call(call: DenoiserCall) -> Tensor | None:
        index, total = call.step.index, call.step.total
        if call.nth:
            return None
        if index == 0:
            trace.steps.clear()
            require_true_gradients(denoiser, call.arguments)
            for each in views:
                each.read(pipe, call)
            trace.subjects = view.subjects[0]
        target = schedule.target(index, total)
        if target is None and not schedule.updates(index, total):
            return None

        evaluate = functools.partial(_loss_and_gradient, view, call)
        images = torch.arange(call.images, device=call.latents.device)
        start = torch.zeros_like(call.latents[: call.images], dtype=_wide(call.latents.dtype))
        if index == 0 and search is not None:
            at = functools.partial(_loss_and_gradient, views[-1], call)
            start = search.run(at, call.latents[: call.images].to(start))
        alpha = schedule.alpha(index, total, trace.step_size)
        losses, gradient = evaluate(images, start)
        before = tuple(losses.tolist())
        change, gradient, refinements = _refine(
            evaluate, start, losses, gradient, alpha, target, schedule.max_refinements
        )
        view.end_step()
        trace.steps.append(TraceStep(index, call.step.timestep, before, refinements))
        return change - alpha * gradient if schedule.updates(index, total) else change

    with _frozen(denoiser), follow(pipe, family, on_call):
        yield trace


def _refine(
    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    change: Tensor,
    losses: Tensor,
    gradient: Tensor,
    alpha: float,
    target: float | None,
    limit: int,
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Steps every image until its loss reaches ``target``; returns the change, the gradient there
    and the steps taken.

    As in the paper's code an image takes one more step after the first loss at or below the target.
    """
    change, losses, gradient = change.clone(), losses.clone(), gradient.clone()
    counts = torch.zeros(len(losses), dtype=torch.long)
    active = torch.arange(len(losses), device=losses.device)
    if target is not None:
        active = active[losses > target]
        while len(active) and counts.max() < limit:
            change[active] -= alpha * gradient[active]
            counts[active.cpu()] += 1
            unfinished = losses[active] > target
            losses[active], gradient[active] = evaluate(active, change)
            active = active[unfinished]
    return change, gradient, tuple(counts.tolist())


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Ends the denoiser's forward once every wanted site has been seen."""


def _loss_and_gradient(
    view: View, call: DenoiserCall, images: Tensor, change: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses [batch] and gradients (shape of ``change[images]``) in x of some images, at x +
    change."""
    part = call.select(call.rows("cond").start + images)
    latents, numbers = part.latents, images.tolist()
    seen = Seen()

    def handler(attention: AttentionCall) -> Tensor:
        if attention.index:
            return attention.run()
        layout = view.family.layout(view.denoiser, part.arguments, attention.site)
        again = view.complete(seen)  # gradient checkpointing computes it again
        output = view.look(attention, layout, numbers, seen)
        if view.complete(seen) and not again:
            raise _Enough
        return output

    with (
        aside(),
        torch.enable_grad(),
        tap(view.denoiser, view.sites | view.pictures | view.features, handler),
    ):
        x = (latents + change[images]).detach().requires_grad_()
        part = part.with_latents(x)
        with suppress(_Enough):
            view.denoiser.forward(
                **part.arguments
            )  # not __call__: contexts see only the pipeline's own calls
        losses = view.losses(seen, numbers)
        # half-precision backward passes underflow without a scale
        boost = 256.0 if latents.dtype == torch.float16 else 1.0
        (gradient,) = torch.autograd.grad(losses.sum() * boost, x)
    gradient = gradient / boost
    if not (losses.isfinite().all() and gradient.isfinite().all()):
        bad = images[~(losses.isfinite() & gradient.flatten(1).isfinite().all(1))].tolist()
        state = "finite" if latents.isfinite().all() else "already NaN or infinite"
        raise NonFiniteError(
            f"loss {losses.tolist()} or its gradient is not finite at step {call.step.index} for image(s) {bad}; "
            f"the latents were {state}. "
            "Lower the step size, or run the model in float32"
        )
    return losses.detach(), gradient


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No weight gradients inside: activations that only they need are not kept."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
