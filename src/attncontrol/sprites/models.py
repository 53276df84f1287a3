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
from attncontrol.version import __version__
from attncontrol.writing import whole

MODELS: Mapping[str, str] = MappingProxyType(
    {"sprites": "sd", "sprites-sd3": "sd3", "sprites-flux": "flux", "sprites-pixart": "pixart"}
)
"""Names on the command line, and the folders of ``path``."""

_SHARED: Mapping[str, Mapping[str, str]] = {
    "sd3": {"vae": "sd/vae", "tokenizer": "sd/tokenizer", "tokenizer_2": "sd/tokenizer"},
    "flux": {"vae": "sd/vae", "tokenizer": "sd/tokenizer", "tokenizer_2": "sd3/tokenizer_3"},
    "pixart": {"vae": "sd/vae", "tokenizer": "sd3/tokenizer_3"},
}
"""Parts that a model has in common with another one, and where they are among the weights."""

_READING = ("max_sequence_length", "clean_caption", "use_resolution_binning")
"""Of a call, what decides how a text and a picture that exists are read."""

_CALLS: Mapping[str, Mapping[str, Any]] = {
    "sd": {"num_inference_steps": 25, "guidance_scale": 2.0},
    "sd3": {"num_inference_steps": 25, "guidance_scale": 2.0, "max_sequence_length": 32},
    "flux": {
        "num_inference_steps": 25,
        "true_cfg_scale": 2.0,
        "negative_prompt": "",
        "max_sequence_length": 32,
        "height": 128,
        "width": 128,
    },
    "pixart": {
        "num_inference_steps": 25,
        "guidance_scale": 2.0,
        "max_sequence_length": 32,
        "height": 128,
        "width": 128,
        "clean_caption": False,
        "use_resolution_binning": False,
    },
}


@checked
def path(name: str = "sd") -> str:
    """Folder of a bundled model, for ``from_pretrained``: "sd", "sd3", "flux" or "pixart", or its
    name on the command line, "sprites" and so on. What models share is stored once: the folders of
    all but "sd" are made of links, among Hugging Face's cached assets or, where these cannot be
    written, in a temporary folder. Raises SettingError for an unknown name."""
    weights, folder = Path(str(files("attncontrol.sprites") / "weights")), _folder(name)
    return str(_assembled(weights, folder) if folder in _SHARED else weights / folder)


@checked
def call(name: str = "sd") -> dict[str, Any]:
    """Arguments with which a bundled model is called, named as for ``path``: 25 steps, the scale of
    classifier-free guidance it was measured with, and the 32 text positions that the transformers
    have read. FLUX needs them most: diffusers' own defaults are 1024 x 1024 pixels and no
    classifier-free guidance, the model draws 128 x 128. PixArt's are a size out of a list that has
    none so small, and prompts washed of HTML. Raises SettingError for an unknown name.

        pipe = DiffusionPipeline.from_pretrained(sprites.path("flux"))
        image = pipe("a cat and a frog", **sprites.call("flux")).images[0]
    """
    return dict(_CALLS[_folder(name)])


def reading(name: str) -> dict[str, Any]:
    """Of ``call``, what goes to verbs that look at a picture that exists."""
    return {key: value for key, value in call(name).items() if key in _READING}


def _folder(name: str) -> str:
    folder = MODELS.get(name, name)
    if folder not in _CALLS:
        known = ", ".join([*sorted(_CALLS), *MODELS])
        raise SettingError(f"no bundled model is called {name!r}; there are: {known}")
    return folder


@cache
def _assembled(weights: Path, folder: str) -> Path:
    """Links to all parts of a model; a folder that an earlier process made is kept."""
    from huggingface_hub import cached_assets_path

    parts = {part.name: part for part in (weights / folder).iterdir()}
    parts |= {name: weights / place for name, place in _SHARED[folder].items()}
    # another installation of the package has other weights, and so may another version
    key = sha256(bytes(weights) + __version__.encode()).hexdigest()[:12]
    name = f"{folder}-{key}"
    try:
        target = cached_assets_path("attncontrol", namespace="sprites", subfolder=name)
        _link(parts, target)
    except OSError:
        target = Path(tempfile.mkdtemp(prefix="attncontrol-")) / name
        _link(parts, target)
    return target


def _link(parts: Mapping[str, Path], target: Path) -> None:
    """Copies where the system has no links, for Windows asks for a privilege."""
    if all(_leads(target / name, source) for name, source in parts.items()):
        return
    with whole(target) as folder:
        folder.mkdir()
        for name, source in parts.items():
            try:
                (folder / name).symlink_to(source, target_is_directory=source.is_dir())
            except OSError:
                if source.is_dir():
                    shutil.copytree(source, folder / name)
                else:
                    shutil.copy(source, folder / name)


def _leads(link: Path, source: Path) -> bool:
    return link.resolve() == source.resolve() if link.is_symlink() else link.exists()
