"""``invert``: the way of a picture that exists to the noise from which a model makes it."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from attncontrol.checks.arguments import Count, NotNegative, Such, checked
from attncontrol.errors import CallError, CouplingError, ModelError, SchedulerError, SettingError
from attncontrol.families.encoder import as_called
from attncontrol.families.family import Family
from attncontrol.inversion._driven import Driven, driven
from attncontrol.inversion._method import Back, Inversion, Learned
from attncontrol.inversion._schedule import is_flow, kind_of, require_invertible
from attncontrol.inversion.exact import Exact
from attncontrol.inversion.trajectory import Course, Trajectory, begun_in, is_trajectory
from attncontrol.maps.opened import checksum, path_of
from attncontrol.running.modular import require_plain
from attncontrol.running.quantised import require_gradients_through
from attncontrol.running.reading import NAMES
from attncontrol.running.refuse import require_gradients
from attncontrol.running.session import Session, attach
from attncontrol.verbs import photo
from attncontrol.verbs.photo import Photo, Size
from attncontrol.writing import require_free

_OURS = ("prompt", "latents", "image", "output_type", "num_images_per_prompt", "strength")
_OF_PICTURES = (
    "Img2Img", "Inpaint", "Edit", "ControlNet", "Fill", "Upscale", "Depth2Img", "Pix2Pix",
    "Refiner",
)  # fmt: skip
_Prompts = Annotated[
    str | Sequence[str],
    Such("a prompt, or one for every picture", lambda of: isinstance(of, str) or len(of)),
]


@checked
@torch.inference_mode(False)  # what is kept may be used beside gradients
@torch.no_grad()
def invert(
    pipe: Any,
    picture: Photo | Sequence[Photo],
    prompt: _Prompts,
    *,
    method: Inversion = Exact(),  # noqa: B008 - a frozen value
    size: Size | None = None,
    guidance_scale: NotNegative | None = None,
    num_inference_steps: Count = 50,
    to: Annotated[Path | str | None, Such("a file", lambda to: to != "")] = None,
    **call: Any,
) -> Trajectory:
    """The latents of a picture at every step of a run, from the picture to noise.

        trajectory = invert(pipe, Image.open("cat.jpg"), "a red cat", num_inference_steps=25)
        with retrace(pipe, trajectory), edit(pipe, [On(LocalBlend()), On(Replace())]):
            source, blue = pipe(["a red cat", "a blue cat"], num_inference_steps=25).images

    ``picture`` is a PIL image or an array, or several with a prompt for each; ``photo.fitted`` says
    how they are made fit for the model, ``size`` is (height, width) in pixels. ``method`` is a
    value of ``attncontrol.inversion``. Without ``guidance_scale`` it is inverted without guidance,
    as published (for FLUX with a distilled one of 1); the run that edits has its own. ``to`` is a
    file that gets the trajectory, and before that what is done of a method that optimises: the same
    call goes on from it. ``call`` goes to the pipeline, which runs its own loop from the picture to
    noise; of other contexts ``keep`` alone sees it, if ``method`` evaluates the model once a step.
    Further prompts in it, such as a negative one, are for all pictures or one for each.

    Raises SettingError for prompts and sizes that do not fit; SchedulerError for schedulers that
    cannot be inverted (those that draw noise or take several predictions); ModelError for families
    that cannot be given pictures; CallError for arguments that are not the user's here. The
    scheduler is then as before.
    """
    require_plain(pipe, "invert")
    run = attach(pipe)
    require_possible(run, method, call)
    photos = [picture] if isinstance(picture, photo.Photo) else list(picture)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if len(photos) != len(prompts):
        raise SettingError(
            f"{len(photos)} pictures have {len(prompts)} prompts; give one for every picture"
        )
    shown = np.stack(photo.batch(pipe, photos, size, call))
    height, width = shown.shape[1:3]
    texts = {name: as_called(pipe, [text] * len(prompts)) for name, text in call.items()
             if name.removeprefix("negative_") in NAMES and isinstance(text, str)}  # fmt: skip
    texts["prompt"] = as_called(pipe, prompts)
    arguments = {**call, **texts, "height": height, "width": width}
    arguments |= {"num_inference_steps": num_inference_steps, "output_type": "latent"}
    if to is not None:
        require_free(path_of(to), is_trajectory)
    latents = _encoded(pipe, run.family, shown)
    guidance_scale = run.family.unguided if guidance_scale is None else guidance_scale
    with _guided(run, guidance_scale, call) as guidance:
        arguments |= guidance
        one = driven(run, method.inverted, latents, arguments, backward=method.by_step)
    trajectory = _trajectory(one, torch.from_numpy(shown), method, guidance_scale)
    return _tuned(run, trajectory, arguments, None if to is None else path_of(to))


@contextmanager
def _guided(run: Session, scale: float, call: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Arguments of a call with this guidance; where a pipeline leaves guidance to guiders, these
    are off. Raises SettingError where they have another scale."""
    pipe, known = run.pipe, inspect.signature(type(run.pipe).__call__).parameters
    distilled = getattr(run.denoiser.config, "guidance_embeds", False)
    names = ("guidance_scale",) if distilled else ("true_cfg_scale", "guidance_scale")
    if name := next((name for name in names if name in known), None):
        given = {name: scale}
        if scale == run.family.unguided and "img_guidance_scale" in known:
            given["img_guidance_scale"] = scale  # that of pictures to read
        yield {name: scale for name, scale in given.items() if name not in call}
        return
    if scale != run.family.unguided:
        raise SettingError(
            f"guidance_scale={scale} is not known to {type(pipe).__name__}, whose guidance is that "
            "of its guider: leave it out"
        )
    guiders = [part for name, part in pipe.components.items() if name.endswith("guider")]
    on = [guider for guider in guiders if guider is not None and guider._enabled]
    for guider in on:
        guider.disable()
    try:
        yield {}
    finally:
        for guider in on:
            guider.enable()


def _tuned(
    run: Session, trajectory: Trajectory, call: dict[str, Any], file: Path | None
) -> Trajectory:
    """With what its method optimises; ``file`` has what is done."""
    begun = begun_in(file, trajectory.course)
    if file is not None and begun is None:
        trajectory.put(file, is_trajectory)

    def keep(learned: Learned) -> None:
        if file is not None:
            trajectory.with_learned(learned).put(file)

    pictures = range(len(trajectory))
    same = dict(zip(pictures, pictures, strict=True))
    latents = trajectory.latents.to(next(run.denoiser.parameters()).device)
    course = trajectory.course
    back = Back(run, course.schedule, course.facts, latents, begun, same, same)
    learned = trajectory.method.learned(back, call, keep)
    if learned is None:
        return trajectory
    keep(learned)
    return trajectory.with_learned(learned)


def _trajectory(one: Driven, shown: Tensor, method: Inversion, guidance: float) -> Trajectory:
    if not one.path or one.facts is None or one.schedule is None:
        raise CouplingError(
            f"{type(one.run.pipe).__name__} ended before its schedule did, so the picture is not "
            "inverted; call it without what shortens its run"
        )
    times = tuple(update.timestep for update in one.schedule.updates)
    facts = replace(one.facts, steps=len(times), timesteps=times)
    of_method = type(method).__name__, asdict(method)
    course = Course(facts, one.schedule, guidance, *of_method, checksum(shown))
    return Trajectory(torch.stack(one.path, 1).cpu(), shown, course)


def require_possible(run: Session, method: Inversion, call: dict[str, Any]) -> None:
    """Raises ModelError, SchedulerError and CallError, before anything runs."""
    pipe = run.pipe
    _require_text_alone(pipe)
    run.family.require_encode(pipe)
    require_invertible(pipe.scheduler)
    if method.flow and not is_flow(pipe.scheduler):
        raise SchedulerError(
            f"{type(method).__name__} is for rectified flow (SD3, FLUX), not for "
            f"{kind_of(pipe.scheduler)}: use Exact() or FixedPoint()"
        )
    if method.solver and "guidance_schedule" in inspect.signature(type(pipe).__call__).parameters:
        raise ModelError(
            f"{type(method).__name__} evaluates between the steps, of which each has a guidance "
            f"scale in {type(pipe).__name__}: use Exact()"
        )
    method.require(run)
    if method.gradients:
        require_gradients(run.family, run.denoiser)
        require_gradients_through(run.denoiser)
    if call.get("eta"):
        raise SchedulerError(f"eta={call['eta']} draws noise in every step; leave it out")
    if given := [argument for argument in _OURS if argument in call]:
        raise CallError(
            f"{given[0]}=... is not given to invert, which takes pictures with a prompt each and "
            "sets the latents itself: leave it out"
        )


def _require_text_alone(pipe: Any) -> None:
    """Raises ModelError for pipelines of diffusers that need a picture beside the prompt."""
    name, known = type(pipe).__name__, inspect.signature(type(pipe).__call__).parameters
    if "image" in known and any(part in name for part in _OF_PICTURES):
        raise ModelError(
            f"{name} makes a picture of another one; invert with the pipeline of the same "
            "components that makes pictures of a prompt alone"
        )


def _encoded(pipe: Any, family: Family, shown: np.ndarray) -> Tensor:
    """The latents of pictures."""
    pixels = torch.from_numpy(shown).permute(0, 3, 1, 2).double() / 127.5 - 1
    return family.clean(pipe, pixels)
