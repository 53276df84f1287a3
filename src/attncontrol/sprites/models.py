"""The bundled small models: where they are and how they are called."""

from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from attncontrol.checks.arguments import checked
from attncontrol.errors import SettingError

MODELS: Mapping[str, str] = MappingProxyType(
    {"sprites": "sd", "sprites-sd3": "sd3", "sprites-flux": "flux"}
)
"""Names on the command line, and the folders of ``path``."""

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
    command line, "sprites" and so on. Raises SettingError for an unknown name."""
    return str(files("attncontrol.sprites") / "weights" / _folder(name))


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
