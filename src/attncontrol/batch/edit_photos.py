"""Photos that ``attncontrol`` edits and records: their trajectories are files beside the output."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from attncontrol.batch.inversions import GUIDANCE, inversion, require_inversion
from attncontrol.batch.settings import Photograph
from attncontrol.errors import RecordError
from attncontrol.export.names import readable
from attncontrol.families import family_of
from attncontrol.inversion._method import Inversion
from attncontrol.inversion.trajectory import Trajectory
from attncontrol.maps.opened import checksum
from attncontrol.running.session import attach
from attncontrol.verbs import photo
from attncontrol.verbs.invert import invert, require_possible
from attncontrol.writing import remove

_OF_A_WEIGHT = 16  # its first numbers, by which models are told apart


@runtime_checkable
class Described(Protocol):
    """A photo with its prompt, and the model and call by which it is inverted."""

    @property
    def photo(self) -> Photograph | None: ...

    @property
    def prompt(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def call(self) -> Mapping[str, Any]: ...


def require_photo(pipe: Any, settings: Described, picture: Image.Image) -> None:
    """Raises SettingError for a size, and for an inversion, that the pipeline cannot have;
    ModelError and SchedulerError as ``invert``."""
    assert settings.photo is not None
    call = _with_scale(pipe, settings.call)
    require_inversion(settings.photo.inversion, pipe, call)
    require_possible(attach(pipe), inversion(settings.photo.inversion, call), {})
    photo.batch(pipe, [picture], None, settings.call)


def trajectory_file(pipe: Any, settings: Described, size: tuple[int, int], folder: Path) -> Path:
    """Named by all that a trajectory depends on: the bytes of the picture, its prompt, the size
    (height, width), the model with its weights and scheduler, the call, the method."""
    assert settings.photo is not None
    method = inversion(settings.photo.inversion, _with_scale(pipe, settings.call))
    about = {
        "photo": settings.photo.sha256,
        "prompt": settings.prompt,
        "size": size,
        "model": [type(pipe).__name__, settings.model, _weights(pipe)],
        "scheduler": pipe.scheduler.to_json_string(),
        "call": own_call(settings.call),
        "method": [type(method).__name__, asdict(method)],
    }
    mark = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{readable(Path(settings.photo.file).stem)}-{mark}.trajectory.safetensors"


def trajectory_of(pipe: Any, settings: Described, picture: Image.Image, folder: Path) -> Trajectory:
    """That in its file in ``folder``; if there is none, or a damaged one, or one of something else,
    the picture is inverted."""
    found = known(pipe, settings, picture, folder)
    return inverted(pipe, settings, picture, folder) if found is None else found


def known(pipe: Any, settings: Described, picture: Image.Image, folder: Path) -> Trajectory | None:
    """The trajectory in its file, if it is that. A damaged one is removed."""
    method, _, shown, file = _described(pipe, settings, picture, folder)
    try:
        found = Trajectory.load(file)
        same = checksum(torch.tensor(shown)[None]), (settings.prompt,), method
        if found.complete and (found.course.photo, found.prompts, found.method) == same:
            return found
    except RecordError:
        remove([file])  # damaged: the name is ours
    return None


def inverted(pipe: Any, settings: Described, picture: Image.Image, folder: Path) -> Trajectory:
    """The picture is inverted into its file."""
    method, call, shown, file = _described(pipe, settings, picture, folder)
    own = own_call(call) | {"height": shown.shape[0], "width": shown.shape[1]}
    invert(pipe, shown, settings.prompt, method=method, to=file, **own)
    return Trajectory.load(file)  # laid out in memory as in later runs, which so are the same


def _described(
    pipe: Any, settings: Described, picture: Image.Image, folder: Path
) -> tuple[Inversion, dict[str, Any], np.ndarray, Path]:
    """How a picture is inverted, the call, what the model is shown, and the file."""
    assert settings.photo is not None
    call = _with_scale(pipe, settings.call)
    (shown,) = photo.batch(pipe, [picture], None, call)
    file = trajectory_file(pipe, settings, shown.shape[:2], folder)
    return inversion(settings.photo.inversion, call), call, shown, file


def own_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Without what guides."""
    return {name: value for name, value in call.items() if name not in GUIDANCE}


def _with_scale(pipe: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """With the guidance scale that the pipeline has unless told."""
    known = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
    scale = {} if known is None else {"guidance_scale": known.default}
    return scale | dict(call)


def _weights(pipe: Any) -> str:
    """A mark of those of the denoiser and the autoencoder."""
    mark = hashlib.sha256()
    for part in (family_of(pipe).denoiser(pipe), pipe.vae):
        for weight in part.parameters():
            mark.update(weight.detach().flatten()[:_OF_A_WEIGHT].float().cpu().numpy().tobytes())
    return mark.hexdigest()
