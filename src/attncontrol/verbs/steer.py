"""``steer``: move the latents against the gradient of an objective while any pipeline samples."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from attncontrol.attention.between import sites_with
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index, Unchecked, checked
from attncontrol.errors import CouplingError, ModelError, SettingError
from attncontrol.objectives.descent import USUAL, Descent, Relative
from attncontrol.objectives.objective import Objective, ObjectiveLike, as_objective, terms_of
from attncontrol.prompts.tokens import Subject
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.looking import Gaze, View, without_idle
from attncontrol.running.quantised import require_gradients_through
from attncontrol.running.refuse import require_gradients
from attncontrol.running.session import Hooks, Session, attach
from attncontrol.running.solvers import require_known_steps
from attncontrol.verbs.gradient import Evaluate, in_units, loss_and_gradient, rms


@dataclass(frozen=True)
class TraceStep:
    """Per image the loss before the update of a step, ``index`` of ``total``, the number of
    refinements, and the move: the root mean square of the whole change of x, the input of the
    network, whose deviation is about 1. 0 of images that are not steered."""

    index: int
    total: int
    timestep: float
    losses: tuple[float, ...]
    refinements: tuple[int, ...]
    moves: tuple[float, ...]


@dataclass
class Trace:
    """What a steered run did, step by step, and the settings it used."""

    where: Where
    step_size: float | Relative
    subjects: tuple[tuple[Subject, ...], ...] = ()
    steps: list[TraceStep] = field(default_factory=list)

    def __repr__(self) -> str:
        refinements = sum(sum(step.refinements) for step in self.steps)
        losses = [sum(step.losses) / len(step.losses) for step in self.steps]
        course = f", mean loss {losses[0]:.4g} to {losses[-1]:.4g}" if losses else ""
        return (
            f"Trace({len(self.steps)} steps of size {self.step_size}, {refinements} refinements"
            f"{course})"
        )


@checked
@contextmanager
def steer(
    pipe: Any,
    objective: Annotated[ObjectiveLike, Unchecked],
    *,
    where: Where | None = None,
    descent: Descent | None = None,
    images: tuple[Index, ...] | None = None,
) -> Iterator[Trace]:
    """Test-time guidance: in the guided steps, x <- x - alpha_i grad L(maps(x)) before the
    pipeline's own denoiser call.

        with steer(pipe, SynGen()) as trace:
            image = pipe("a red cat and a blue frog").images[0]

    The gradient pass runs the conditional branch only, stops the denoiser after the last site of
    ``where``, and computes the loss in float32 or wider. Each image descends on its own loss.
    The loss of a video is the mean over its frames, each of which the objective sees as a picture.
    ``where`` and the step size default to the family's measured values, ``descent`` to the
    objective's. The words of the objective (None: the nouns of the prompt) are located in the
    prompt that the pipeline is called with. ``images`` are the numbers of those that are steered,
    all if None: ``images=(1,)`` leaves the source of an edit as it is. Inside ``edit`` the loss
    sees the edited attention, wherever the two contexts are opened; an image whose attention an
    edit replaces by another's has no gradient there and is left as it is: a warning says so if no
    image has one.

    Yields a Trace. Raises WordError, SiteError, UnsupportedError (scheduler, attention backend),
    LossError, NonFiniteError, and CouplingError if the pipeline was not called inside the block.
    """
    run, objective = attach(pipe), as_objective(objective)
    require_known_steps(pipe.scheduler)
    require_gradients(run.family, run.denoiser)
    require_gradients_through(run.denoiser)
    known = tuple(run.sites.values())
    if isinstance(run.family.steering, str):
        reason = run.family.steering
        raise ModelError(f"{type(pipe).__name__} can be recorded, not steered: {reason}")
    default_where, published = run.family.steering(known)
    where, descent = where or default_where, descent or objective.descent
    if objective.compares and images is not None:
        raise SettingError("an objective that compares with the first picture steers all images")
    if descent.thresholds and objective.compares:
        raise SettingError(
            "an objective that compares with the first picture takes no refinement: "
            "Descent(thresholds={})"
        )
    given = (size for size in (descent.step_size, published) if size is not None)
    trace = Trace(where, next(given, USUAL))
    chosen = sites_with(known, "image->text", where)
    steering = _Steering(run, objective, Gaze.of(objective, chosen, known), descent, trace, images)
    with run.hooked(Hooks(before=steering.before, cached=True)):
        yield trace
    if steering.view is not None and not trace.steps and run.running != run.sites:
        warnings.warn(
            "nothing was steered: its denoisers take turns, and none of the chosen sites ran in a "
            "guided step; choose sites of the other one, or guide more steps",
            stacklevel=4,
        )


@dataclass(eq=False)
class _Steering:
    """``view`` is made anew for every run of the pipeline."""

    run: Session
    objective: Objective
    gaze: Gaze
    descent: Descent
    trace: Trace
    images: tuple[int, ...] | None = None
    view: View | None = None

    def before(self, call: DenoiserCall) -> Tensor | None:
        """The change of the latents at the first call of a step; also in inference mode, where
        nothing has a gradient."""
        if not torch.is_inference_mode_enabled():
            return self._change(call)
        with torch.inference_mode(False), torch.no_grad():
            return self._change(replace(call, arguments=tree_map(_tracked, call.arguments)))

    def _change(self, call: DenoiserCall) -> Tensor | None:
        index, total, descent = call.step.index, call.step.total, self.descent
        if call.nth or call.step.stage:
            return None
        if call.is_first:
            self._begin(call)
        view = None if self.view is None else self.view.at(self.run.running)
        target, updates = descent.target(index, total), descent.updates(index, total)
        if view is None or (target is None and not updates):
            return None
        images = self._chosen(call)
        latents = call.latents[: len(call.images)]
        start = torch.zeros_like(latents, dtype=_wide(latents.dtype))
        if call.is_first:
            start = self._searched(call, start, latents)
        evaluate: Evaluate = functools.partial(loss_and_gradient, self.run, view, call)
        if isinstance(self.trace.step_size, Relative):
            evaluate = functools.partial(in_units, evaluate)
        alpha = descent.alpha(index, total, self.trace.step_size)
        losses, gradient = start.new_zeros(len(start)), torch.zeros_like(start)
        losses[images], gradient[images] = evaluate(images, start)
        before = tuple(losses.tolist())
        change, gradient, counts = _refine(
            evaluate, start, losses, gradient, alpha, target, descent.limit(self.trace.step_size)
        )
        view.end_step()
        change = change - alpha * gradient if updates else change
        moves = tuple(rms(change).tolist())
        of_step = index, total, call.step.timestep
        self.trace.steps.append(TraceStep(*of_step, before, counts, moves))
        return change

    def _chosen(self, call: DenoiserCall) -> Tensor:
        """The places of the images that are steered. Raises CouplingError."""
        chosen = call.images if self.images is None else self.images
        if missing := set(chosen) - set(call.images):
            raise CouplingError(
                f"images={self.images}, but the pipeline makes {list(call.images)}: there is no "
                f"image {min(missing)} to steer"
            )
        places = [call.images.index(image) for image in chosen]
        return torch.tensor(places, device=call.latents.device)

    def _begin(self, call: DenoiserCall) -> None:
        self.trace.steps.clear()
        self.trace.subjects = call.text.subjects(terms_of(self.objective)[0][1].words)
        acting = without_idle(self.objective, call.text)
        self.view = None
        if acting is not None:
            self.view = View.of(self.run.family, self.gaze, acting, call.text)

    def _searched(self, call: DenoiserCall, start: Tensor, latents: Tensor) -> Tensor:
        """The change that a search of the initial noise finds."""
        search = self.objective.search
        if search is None:
            return start
        known = tuple(self.run.sites.values())
        gaze = Gaze.of(as_objective(search.objective), self.gaze.text, known).at(self.run.running)
        view = View.of(self.run.family, gaze, as_objective(search.objective), call.text)
        evaluate = functools.partial(loss_and_gradient, self.run, view, call)
        found, images = search.run(evaluate, latents.to(start)), self._chosen(call)
        return start.index_copy(0, images, found[images])


def _refine(
    evaluate: Evaluate,
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
        active = active[(losses > target) & gradient.flatten(1).any(1)]
        while len(active) and counts.max() < limit:
            change[active] -= alpha * gradient[active]
            counts[active.cpu()] += 1
            unfinished = losses[active] > target
            losses[active], gradient[active] = evaluate(active, change)
            active = active[unfinished]
    return change, gradient, tuple(counts.tolist())


def _tracked(value: Any) -> Any:
    """Tensors as they are outside inference mode."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
