"""The bundled small models: where they are and how they are called."""

import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attncontrol.checks.arguments import checked
from attncontrol.errors import SettingError

MODELS: Mapping[str, str] = MappingProxyType(
    {"sprites": "sd", "sprites-sd3": "sd3", "sprites-flux": "flux"}
)
"""Names on the command line, and the folders of ``path``."""

_SHARED: Mapping[str, Mapping[str, str]] = {
    "sd3": {"vae": "sd/vae", "tokenizer": "sd/tokenizer", "tokenizer_2": "sd/tokenizer"},
    "flux": {"vae": "sd/vae", "tokenizer": "sd/tokenizer", "tokenizer_2": "sd3/tokenizer_3"},
}
"""Parts that a model has in common with another one, and where they are among the weights."""

_CALLS: Mapping[str, Mapping[str, Any]] = {
    "sd": {"num_inference_steps": 25, "guidance_scale": 2.0},
    "sd3": {"num_inference_steps": 25, "guidance_scale": 5.0, "max_sequence_length": 32},
    "flux": {
        "num_inference_steps": 25,
        "true_cfg_scale": 5.0,
        "negative_prompt": "",
        "max_sequence_length": 32,
        "height": 128,
        "width": 128,
    },
}


@checked
def path(name: str = "sd") -> str:
    """Folder of a bundled model, for ``from_pretrained``: "sd", "sd3" or "flux", or its name on the
    command line, "sprites" and so on. What models share is stored once: the folders of all but "sd"
    are made of links, among Hugging Face's cached assets or, where these cannot be written, in a
    temporary folder. Raises SettingError for an unknown name."""
    weights, folder = Path(str(files("attncontrol.sprites") / "weights")), _folder(name)
    return str(_assembled(weights, folder) if folder in _SHARED else weights / folder)


@checked
def call(name: str = "sd") -> dict[str, Any]:
    """Arguments with which a bundled model is called, named as for ``path``: 25 steps, the scale of
    classifier-free guidance it was measured with, and the 32 text positions that SD3 and FLUX have
    read. FLUX needs them most: diffusers' own defaults are 1024 x 1024 pixels and no
    classifier-free guidance, the model draws 128 x 128. Raises SettingError for an unknown name.

        pipe = DiffusionPipeline.from_pretrained(sprites.path("flux"))
        image = pipe("a cat and a frog", **sprites.call("flux")).images[0]
    """
    return dict(_CALLS[_folder(name)])


def _folder(name: str) -> str:
    folder = MODELS.get(name, name)
    if folder not in _CALLS:
        known = ", ".join([*sorted(_CALLS), *MODELS])
        raise SettingError(f"no bundled model is called {name!r}; there are: {known}")
    return folder


@cache
def _assembled(weights: Path, folder: str) -> Path:
    """Links to all parts of a model; complete ones of an earlier process are kept."""
    from huggingface_hub import cached_assets_path

    parts = {part.name: part for part in (weights / folder).iterdir()}
    parts |= {name: weights / place for name, place in _SHARED[folder].items()}
    # another installation of the package has other weights
    name = f"{folder}-{sha256(bytes(weights)).hexdigest()[:12]}"
    try:
        target = cached_assets_path("attncontrol", namespace="sprites", subfolder=name)
        _link(parts, target)
    except OSError:
        target = Path(tempfile.mkdtemp(prefix=f"attncontrol-{name}-"))
        _link(parts, target)
    return target


def _link(parts: Mapping[str, Path], target: Path) -> None:
    """Copies where the system has no links, for Windows asks for a privilege."""
    for name, source in parts.items():
        link = target / name
        if link.is_symlink() and link.resolve() == source.resolve():
            continue
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(source, target_is_directory=source.is_dir())
        except FileExistsError:  # by another process, a moment ago
            continue
        except OSError:
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, link)
