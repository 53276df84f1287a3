"""The bundled small models, their scenes, the ground-truth scorer and the bench."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

MODELS: Mapping[str, str] = MappingProxyType(
    {"sprites": "sd", "sprites-sd3": "sd3", "sprites-flux": "flux"}
)
"""Names on the command line, and the folders of ``path``."""

CALL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "sprites": {"num_inference_steps": 25, "guidance_scale": 2.0},
        "sprites-sd3": {
            "num_inference_steps": 25,
            "guidance_scale": 5.0,
            "max_sequence_length": 32,
        },
        "sprites-flux": {
            "num_inference_steps": 25,
            "true_cfg_scale": 5.0,
            "negative_prompt": "",
            "max_sequence_length": 32,
            "height": 128,
            "width": 128,
        },
    }
)
"""How each bundled model is called; the transformers have read texts of 32 positions only."""


def path(name: str = "sd") -> str:
    """Folder of a bundled model, for ``from_pretrained``. Raises ValueError for an unknown name."""
    weights = Path(str(files("attncontrol.sprites"))) / "weights"
    known = sorted(folder.name for folder in weights.iterdir() if folder.is_dir())
    if name not in known:
        raise ValueError(f"no bundled model is called {name!r}; there are: {', '.join(known)}")
    return str(weights / name)
