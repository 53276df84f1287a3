"""What the files of a model say about it, before it is loaded."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attncontrol import sprites
from attncontrol.errors import ModelError


@dataclass(frozen=True)
class Model:
    """Of a model by its name; what its files do not say is None.

    ``steps``: of the schedule it was trained with. ``multiple``: pixels that divide both sides of
    its pictures. ``size``: (height, width) in pixels of those that it makes unless told otherwise.
    """

    name: str
    pipeline: str | None
    steps: int | None
    multiple: int | None
    size: tuple[int, int] | None

    def arguments(self) -> Mapping[str, Any] | None:
        """Of the pipeline's call, with their defaults; None where the pipeline is not known."""
        import diffusers

        found = getattr(diffusers, self.pipeline or "", None)
        if found is None:
            return None
        parameters = inspect.signature(found.__call__).parameters.values()
        return {each.name: each.default for each in parameters}

    def require_pictures(self) -> None:
        """Raises ModelError for pipelines of videos."""
        if self.name not in sprites.MODELS and "num_frames" in (self.arguments() or {}):
            raise ModelError(
                f"{self.name!r} is a {self.pipeline}, which makes videos; commands and jobs make "
                "pictures. In Python record, steer and edit take it"
            )


def read(name: str) -> Model:
    """Of the bundled models, a folder or a hub id."""
    index, scheduler = (
        _json(name, "model_index.json"),
        _json(name, "scheduler/scheduler_config.json"),
    )
    vae, unet = _json(name, "vae/config.json"), _json(name, "unet/config.json")
    denoiser = unet or _json(name, "transformer/config.json")
    levels, own = len(vae.get("block_out_channels", ())), denoiser.get("sample_size")
    cell = 2 ** (levels - 1) if levels else None  # pixels of a latent
    sides = own if isinstance(own, list) else [own, own]
    return Model(
        name=name,
        pipeline=index.get("_class_name"),
        steps=scheduler.get("num_train_timesteps"),
        multiple=cell and (cell if unet else 2 * cell),  # transformers cut patches of two
        size=(sides[0] * cell, sides[1] * cell) if cell and own else None,
    )


def is_here(name: str) -> bool:
    """Whether its files can be read without asking the hub."""
    return name in sprites.MODELS or Path(name).is_dir()


def _json(name: str, file: str) -> dict[str, Any]:
    """Empty if there is none; loading the model says why."""
    if not name.strip():
        return {}
    folder = Path(sprites.path(name) if name in sprites.MODELS else name)
    try:
        if folder.is_dir():
            path = str(folder / file)
        else:
            from huggingface_hub import hf_hub_download

            path = hf_hub_download(name, file)
        found = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):  # those of the hub are OSErrors or ValueErrors
        return {}
    return found if isinstance(found, dict) else {}
