"""Photos that edits need in no batch: what is taken of them is kept while they are inverted."""

import inspect
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attncontrol.attention.moment import Moment
from attncontrol.batch.edit_methods import edits_of
from attncontrol.batch.edit_names import editing
from attncontrol.batch.edit_photos import inverted, known, own_call, trajectory_of
from attncontrol.batch.generate import Picture
from attncontrol.batch.settings import Editing
from attncontrol.edits.local_blend import LocalBlend
from attncontrol.errors import SizeError
from attncontrol.families import family_of
from attncontrol.inversion.trajectory import Trajectory
from attncontrol.maps.kept import KeptPass
from attncontrol.verbs.keep import keep
from attncontrol.verbs.places import On
from attncontrol.verbs.retrace import retrace

_CONDITIONAL = ("p2p", "replace", "blend")
"""Methods that take of their source what it has in the conditional branch, whatever its guidance
is: the inversion shows that without any."""
_LIMIT = 4.0 * 2**30  # bytes; SD 1.5 in float32, 512 pixels and 50 steps needs 2.6


@dataclass(frozen=True, eq=False)
class KeptPhoto:
    """``seconds`` are those of its inversion, or of the run that makes it again."""

    trajectory: Trajectory
    source: KeptPass
    seconds: float

    @property
    def size(self) -> tuple[int, int]:
        return self.trajectory.size

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        return self.trajectory.pictures

    def rebuilt(self, pipe: Any, seed: int) -> Picture:
        """As it comes back beside the edit of a seed."""
        steps = self.source.facts.steps
        (place,) = (name for name in self.source.tensors if name.startswith(f"picture/{steps - 1}"))
        (image,) = pipe.image_processor.postprocess(self.source.tensors[place], output_type="pil")
        prompt = self.trajectory.prompts[0] or ""
        return Picture(prompt, seed, "plain", image, {}, (), (), self.seconds, 0.0)


@dataclass(eq=False)
class Unchanged:
    """``last`` are the cells [image height width] that are the source's, after the last step that
    left any."""

    source: KeptPass
    last: Tensor | None = None

    def ended(self, latents: Tensor, now: Moment) -> None:
        """The latents after a step, when all edits have changed them."""
        if now.place("latents") not in self.source:
            return
        same = latents == now.latents_of(self.source, latents)
        axis, grid = 2 if latents.ndim == 3 else 1, now.layout.grid[-2:]
        cells = same.all(axis).reshape(len(latents), *grid)
        if cells.any():
            self.last = cells.to(torch.uint8).cpu()


def kept_or_not(
    pipe: Any, settings: Editing, picture: Image.Image, folder: Path
) -> KeptPhoto | Trajectory:
    """A photo with what the edits of ``settings`` take of it, where that is the same as in a batch
    with it and no more than four GiB; else its trajectory alone."""
    of = pipe, settings, picture, folder
    if not _is_seen(pipe, settings):
        return trajectory_of(*of)
    began, found = time.perf_counter(), known(*of)
    try:
        with keep(pipe, _edits(pipe, settings), limit=_LIMIT) as source:
            trajectory = inverted(*of) if found is None else _again(pipe, settings, found)
    except SizeError:
        return trajectory_of(*of)
    return KeptPhoto(trajectory, source, time.perf_counter() - began)


def _again(pipe: Any, settings: Editing, trajectory: Trajectory) -> Trajectory:
    """The run that makes the photo again, which shows what its inversion did."""
    height, width = trajectory.size
    call = {"guidance_scale": 1.0, "height": height, "width": width, "output_type": "pt"}
    with retrace(pipe, trajectory):
        pipe(prompt=settings.prompt, **own_call(settings.call) | call)
    return trajectory


def _edits(pipe: Any, settings: Editing) -> list[On]:
    """At all strengths; LocalBlend takes latents and the picture, also for masks."""
    methods = (settings.method, *settings.others)
    return [On(LocalBlend()), *(on for method in methods for on in edits_of(method, 0, pipe))]


def _is_seen(pipe: Any, settings: Editing) -> bool:
    """Whether the inversion shows all that these edits take of the source, and no record or picture
    of another size is made of this."""
    by = settings.photo.inversion if settings.photo else ""
    if settings.word or settings.record or by != "exact":
        return False
    config: Any = family_of(pipe).denoiser(pipe).config  # distilled ones are told the guidance
    told = config.get("guidance_embeds") or config.get("time_cond_proj_dim")
    binned = "use_resolution_binning" in inspect.signature(type(pipe).__call__).parameters
    fitted = not binned or settings.call.get("use_resolution_binning") is False
    parts, _ = editing(settings.method)
    return fitted and not told and {part.name for part in parts} <= {*_CONDITIONAL}
