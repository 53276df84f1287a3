"""Models, precisions, seeds and guidance by their names, as scripts and the command line give
them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as of_diffusers
from transformers.utils import logging as of_transformers

from attncontrol import sprites
from attncontrol.errors import UnsupportedError

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""Precisions of a pipeline."""


def load(model: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """A bundled model by its name, a local folder or a hub id. Raises UnsupportedError if there is
    no such model."""
    if model in sprites.MODELS:
        pipe = DiffusionPipeline.from_pretrained(sprites.path(sprites.MODELS[model]), dtype=dtype)
    else:
        try:
            pipe = DiffusionPipeline.from_pretrained(model, dtype=dtype)
        except (OSError, ValueError) as error:
            kind = (
                "folder is not a diffusers pipeline"
                if Path(model).is_dir()
                else "model could be neither found nor downloaded"
            )
            raise UnsupportedError(
                f"{model!r}: this {kind} ({error}). Use one of {', '.join(sprites.MODELS)}, a local pipeline folder or a hub id"
            ) from error
    return pipe.to(device)


def quiet() -> None:
    """No notes below errors and no loading bars from diffusers and transformers."""
    for library in (of_diffusers, of_transformers):
        library.set_verbosity_error()
        library.disable_progress_bar()


def guided(call: Mapping[str, Any], scale: float | None) -> dict[str, Any]:
    """The arguments of a pipeline's call with this scale of classifier-free guidance; None leaves
    it as it is."""
    key = "true_cfg_scale" if "true_cfg_scale" in call else "guidance_scale"
    return dict(call) if scale is None else {**call, key: scale}


def parse_seeds(text: str) -> list[int]:
    """``"0-3,8"`` -> [0, 1, 2, 3, 8]. Raises ValueError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"{text!r}: write seeds as 0-3,8")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return seeds
