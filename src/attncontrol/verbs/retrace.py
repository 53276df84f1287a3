"""``retrace``: a run that makes the picture of a trajectory again, as a source for edits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import Tensor

from attncontrol.checks.arguments import Index, Such, checked
from attncontrol.errors import CouplingError
from attncontrol.inversion._driven import any_size
from attncontrol.inversion._method import Back
from attncontrol.inversion._schedule import require_invertible, schedule_of
from attncontrol.inversion._solver import Solving, solved
from attncontrol.inversion.trajectory import Trajectory
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Hooks, Session, attach
from attncontrol.running.sources import facts_of, require_same_model, require_same_run

_Images = Annotated[
    Sequence[Index] | None,
    Such("a list of numbers of images, one for every picture, such as [0, 2], or an empty one",
         lambda images: images is None or len(set(images)) == len(images)),
]  # fmt: skip


@checked
@contextmanager
def retrace(pipe: Any, trajectory: Trajectory, *, images: _Images = None) -> Iterator[None]:
    """Image 0 of every run of the pipeline in the block retraces a picture to itself.

        with retrace(pipe, trajectory), edit(pipe, [On(LocalBlend()), On(Replace())]):
            source, blue = pipe(["a red cat", "a blue cat"], num_inference_steps=25).images

    All other images start from the same noise, so edits have a source; give the pipeline no
    latents, and seeds for ``Within(anew=True)`` alone. Of several pictures the first images retrace
    one each, or ``images`` are the numbers of those that do; every other one starts as its source
    in the open edits, else as the last one before it that retraces. How exactly the picture comes
    back is that of the method.
    With ``images=()`` no image retraces: all start from the noise of the one picture, or of that
    of their number, for edits whose source was kept, at best during the inversion:

        with keep(pipe, [LocalBlend(), Replace()]) as source:
            trajectory = invert(pipe, photo, "a red cat", num_inference_steps=25)
        edits = [On(LocalBlend(source=source)), On(Replace(source=source))]
        with retrace(pipe, trajectory, images=()), edit(pipe, edits):
            blue = pipe("a blue cat", num_inference_steps=25).images[0]

    It opens and closes in any order with ``edit``, ``steer``, ``perturb``, ``record`` and ``keep``.
    A run has the model, picture size, steps and scheduler of the trajectory; prompts and guidance
    are its own. Raises CouplingError where they differ, before the denoiser runs, if the pipeline
    was not called inside the block, and without an image for methods whose edits need the picture
    beside them; SchedulerError.
    """
    run = attach(pipe)
    if any(seat.hooks.starts for seat in run.contexts.seats):
        raise CouplingError(
            f"another retrace(...) is open on this {type(pipe).__name__}, and a run begins from "
            "one trajectory: invert the pictures together, with a prompt for each"
        )
    require_invertible(pipe.scheduler)
    require_same_model(
        run.contexts, trajectory.course.facts, "the trajectory was made with", "invert with"
    )
    if not trajectory.complete:
        done, steps = trajectory.optimised, trajectory.course.facts.steps
        raise CouplingError(
            f"of this trajectory {done} of {steps} steps are optimised: invert the picture again "
            "with the same to=..., which goes on"
        )
    if images is not None and not images and trajectory.method.beside:
        raise CouplingError(
            f"with {type(trajectory.method).__name__} edits need the picture in their batch, and "
            "images=() retraces none: give it an image, or invert with Exact()"
        )
    going = _Going(run, trajectory, images)
    solving = Solving(
        pipe, trajectory.method.places, going.require_same_schedule, lambda: run.hides
    )
    solved_too = solved(pipe, solving) if trajectory.method.solver else nullcontext()
    hooks = Hooks(starts=going.starts, fed=going.fed, pinned=going.pinned)
    with solved_too, run.hooked(hooks):
        yield


@dataclass(eq=False)
class _Going:
    """One run after another."""

    run: Session
    trajectory: Trajectory
    images: Sequence[int] | None
    back: Back | None = None

    def starts(self, latents: Tensor) -> Tensor:
        """Those of the noise that the pictures became, instead of random ones."""
        kept = self.trajectory.latents
        if latents.shape[1:] != kept.shape[2:]:
            height, width = self.trajectory.size
            raise CouplingError(
                f"the trajectory is of pictures of {height} x {width} pixels, this run makes "
                f"others: call the pipeline with height={height}, width={width}"
                f"{any_size(self.run.pipe)}"
            )
        self.back = self._back(len(latents))
        pictures = [self.back.of[image] for image in range(len(latents))]
        return kept[pictures, 0].to(latents)

    def _back(self, count: int) -> Back:
        trajectory = self.trajectory
        chosen = list(range(len(trajectory))) if self.images is None else list(self.images)
        learned, latents = trajectory.learned, trajectory.latents
        shared = self.run, trajectory.course.schedule, trajectory.course.facts, latents, learned
        if not chosen:
            return Back(*shared, {}, _alone(len(trajectory), count))
        if len(chosen) != len(trajectory):
            raise CouplingError(
                f"images={self.images}, but the trajectory is of {len(trajectory)} pictures; name "
                "an image for each, or choose pictures: trajectory[0]"
            )
        if max(chosen) >= count:
            raise CouplingError(
                f"image {max(chosen)} retraces a picture, but the pipeline makes {count} images; "
                "give it a prompt for every picture, then one for every edit"
            )
        retraced = dict(enumerate(chosen))
        of = {image: _picture(chosen, image, self.run.source_of(image)) for image in range(count)}
        return Back(*shared, retraced, of)

    def fed(self, call: DenoiserCall) -> DenoiserCall:
        if call.is_first:
            self._require_same_run(call)
        assert self.back is not None  # since the first call
        return self.trajectory.method.fed(call, self.back)

    def _require_same_run(self, call: DenoiserCall) -> None:
        """Raises CouplingError."""
        if self.back is None:
            raise CouplingError(
                f"{type(self.run.pipe).__name__} prepares its latents in a way that is not known, "
                "so they cannot be those of the trajectory"
            )
        facts, own = self.trajectory.course.facts, facts_of(self.run.contexts, call)
        if self.trajectory.method.solver:  # which has changed the schedule
            own = replace(own, steps=facts.steps, timesteps=facts.timesteps)
        require_same_run(facts, own, "the trajectory was made")
        if not self.trajectory.method.solver:
            self.require_same_schedule(self.run.pipe.scheduler)

    def require_same_schedule(self, scheduler: Any) -> None:
        """Raises CouplingError."""
        if not schedule_of(scheduler).resembles(self.trajectory.course.schedule):
            raise CouplingError(
                "the trajectory was made with another noise schedule, number of steps or kind of "
                "prediction: retrace it with the scheduler and steps that it was inverted with"
            )

    def pinned(self, latents: Tensor, call: DenoiserCall) -> Tensor:
        assert self.back is not None  # since the first call
        return self.trajectory.method.after(latents, call, self.back)


def _alone(pictures: int, count: int) -> dict[int, int]:
    """Image -> the number of its picture, where none retraces. Raises CouplingError."""
    if pictures not in (1, count):
        raise CouplingError(
            f"the trajectory is of {pictures} pictures, but the pipeline makes {count} images: "
            "name one picture for all, trajectory[0], or one for each, trajectory[[0, 1]]"
        )
    return {image: min(image, pictures - 1) for image in range(count)}


def _picture(chosen: Sequence[int], image: int, source: int) -> int:
    """The number of the picture from whose noise an image starts."""
    for known in (image, source):
        if known in chosen:
            return chosen.index(known)
    before = [other for other in chosen if other < image] or [min(chosen)]
    return chosen.index(max(before))
