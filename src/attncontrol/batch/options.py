"""Models, precisions, seeds and guidance by their names, as scripts and the command line give
them. torch and diffusers are imported when a model is loaded."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attncontrol import sprites
from attncontrol.batch import model_files
from attncontrol.errors import ModelError, SettingError

if TYPE_CHECKING:
    import torch

    from attncontrol.objectives.descent import Relative

DTYPES = ("float32", "float16", "bfloat16")
"""Precisions of a pipeline, as torch names them."""
_LARGEST_SEED = 2**64 - 1  # of torch.Generator
_MOST_SEEDS = 1_000_000  # what is more is a slip of the finger, and would fill the memory

_MODELS = f"Use {', '.join(sprites.MODELS)} (bundled), a local pipeline folder or a hub id"
_CAUSES = {
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set",
    "GatedRepoError": "its licence must be accepted on the hub first",
    "RepositoryNotFoundError": "the hub has no such model, or it is private",
    "LocalEntryNotFoundError": "the hub cannot be reached",
    "EntryNotFoundError": "the hub has no pipeline of that name",
    "ConnectionError": "the hub cannot be reached",
    "ConnectError": "the hub cannot be reached",
}
"""Errors of the hub by the names of their classes, which its versions keep in different places."""


def load_pipeline(
    model: str, *, device: str = "cpu", dtype: "str | torch.dtype" = "float32"
) -> Any:
    """A bundled model by its name, a local folder or a hub id. Raises ModelError if there is no
    such model or it makes videos, SettingError if there is no such device."""
    require_model(model)
    model_files.read(model).require_pictures()
    import torch
    from diffusers import DiffusionPipeline

    precision = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    require_device(device)
    source = sprites.path(model) if model in sprites.MODELS else model
    try:
        pipe = DiffusionPipeline.from_pretrained(source, dtype=precision)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{model!r}: "
            + ("this folder is no whole diffusers pipeline" if Path(source).is_dir() else
               "there is no folder of that name, and it could not be downloaded")
            + f": {_why(error)}. {_MODELS}"
        ) from error  # fmt: skip
    return pipe.to(device)


def require_model(name: str) -> None:
    """Raises ModelError for a name that can be none of a model, before anything is imported or
    downloaded: a slip in that of a bundled one, a file, a folder of something else."""
    if name in sprites.MODELS:
        return
    wrong, path = None, Path(name)
    if not name.strip():
        wrong = "the name is empty"
    elif path.is_file():
        wrong = "this is a file; a model is a folder with model_index.json"
    elif path.is_dir():
        if not (path / "model_index.json").is_file():
            wrong = "this folder is no diffusers pipeline: it has no model_index.json"
    elif near := "/" not in name and get_close_matches(name.lower(), sprites.MODELS, 1, 0.75):
        wrong = f"there is no such model or folder; did you mean {near[0]}?"
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII):
        wrong = "there is no folder of that name, and it is no hub id, owner/name"
    if wrong:
        raise ModelError(f"{name!r}: {wrong}{'' if wrong.endswith('?') else '.'} {_MODELS}")


def _why(error: BaseException) -> str:
    """What a library failed for, in a clause."""
    each: BaseException | None = error
    while each is not None:
        for kind in type(each).__mro__:
            if kind.__name__ in _CAUSES:
                return _CAUSES[kind.__name__]
        each = each.__cause__ or each.__context__
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__


def require_device(device: str) -> None:
    """Raises SettingError if torch cannot hold a tensor there."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as the device has it
        reason = str(error).strip().splitlines()[0]
        raise SettingError(
            f"device {device!r} cannot be used here: {reason} (torch {torch.__version__}); "
            "use cpu, or install torch for this device"
        ) from error


def schedule(pipe: Any, config: Mapping[str, Any]) -> None:
    """Gives the pipeline the scheduler of this configuration, as ``to_json_string`` tells it,
    unless it has it. Raises SettingError for one that diffusers does not know."""
    import diffusers

    if json.loads(pipe.scheduler.to_json_string()) == config:
        return
    kind: Any = getattr(diffusers, str(config.get("_class_name")), None)
    known = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
    if not known:
        raise SettingError(f"diffusers has no scheduler {config.get('_class_name')!r}")
    try:
        pipe.scheduler = kind.from_config(dict(config))
    except (TypeError, ValueError, ArithmeticError, LookupError, NotImplementedError) as error:
        raise SettingError(f"a {kind.__name__} cannot be made as configured: {error}") from error


def quiet() -> None:
    """No notes below errors and no loading bars from diffusers and transformers."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for library in (of_diffusers, of_transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()


def guided(call: Mapping[str, Any], scale: float | None) -> dict[str, Any]:
    """The arguments of a pipeline's call with this scale of classifier-free guidance; None leaves
    it as it is."""
    key = "true_cfg_scale" if "true_cfg_scale" in call else "guidance_scale"
    return dict(call) if scale is None else {**call, key: scale}


def parse_step(text: str) -> "float | Relative":
    """A step size, "8", or how far a picture moves, "6%". Raises SettingError."""
    size, share = step_of(text)
    if not share:
        return size
    from attncontrol.objectives.descent import Relative

    return Relative(size / 100)


def step_of(text: str) -> tuple[float, bool]:
    """The number of a step size, and whether it is a percentage: without torch. Raises
    SettingError."""
    number = text.removesuffix("%")
    try:
        size = float(number)
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise SettingError(
            f"{text!r}: a step size is a finite number, 0 or larger, or a share, such as 6%"
        )
    return size, number != text


def parse_seeds(text: str) -> list[int]:
    """``"0-3,8"`` -> [0, 1, 2, 3, 8]. Raises SettingError for anything else, for a seed of more
    than 64 bits, one that is named twice, and more than a million of them."""
    parts: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,30})(?:\s*-\s*(\d{1,30}))?\s*", part, re.ASCII)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise SettingError(f"{text!r}: write seeds as 0-3,8")
        if int(match[2] or match[1]) > _LARGEST_SEED:
            raise SettingError(f"{text!r}: the largest seed is {_LARGEST_SEED}")
        parts.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    if (count := sum(part.stop - part.start for part in parts)) > _MOST_SEEDS:
        raise SettingError(f"{text!r} are {count} seeds; at most {_MOST_SEEDS} are made at once")
    seeds = list(chain.from_iterable(parts))
    if twice := [seed for seed, times in Counter(seeds).items() if times > 1]:
        raise SettingError(f"{text!r} names seed {twice[0]} twice")
    return seeds


def image_to_image(pipe: Any) -> Any:
    """Diffusers' image-to-image pipeline of the same parts."""
    from diffusers import AutoPipelineForImage2Image

    again = AutoPipelineForImage2Image.from_pipe(pipe)
    again.set_progress_bar_config(disable=True)
    return again
