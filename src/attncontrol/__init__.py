"""Record and edit attention inside text-to-image diffusion models, and build on it.

Names are imported on first use: until then this package costs nothing, and no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from attncontrol.version import __version__ as __version__

if TYPE_CHECKING:  # what type checkers and editors see
    from attncontrol import edits as edits
    from attncontrol import losses as losses
    from attncontrol import sprites as sprites
    from attncontrol.attention.edit import Edit
    from attncontrol.attention.sites import Where
    from attncontrol.inversion.trajectory import Trajectory as Trajectory
    from attncontrol.maps.kept import KeptPass as KeptPass
    from attncontrol.maps.kept import kept as kept
    from attncontrol.maps.reading import load
    from attncontrol.maps.recorded import AttentionMaps
    from attncontrol.maps.step import StepMaps as StepMaps
    from attncontrol.maps.store import save
    from attncontrol.objectives.descent import Descent
    from attncontrol.objectives.descent import Relative as Relative
    from attncontrol.objectives.objective import Objective
    from attncontrol.verbs.edit import edit
    from attncontrol.verbs.invert import invert as invert
    from attncontrol.verbs.keep import keep
    from attncontrol.verbs.locate import locate
    from attncontrol.verbs.perturb import perturb
    from attncontrol.verbs.places import On
    from attncontrol.verbs.record import estimate_bytes, record
    from attncontrol.verbs.retrace import retrace as retrace
    from attncontrol.verbs.steer import steer

__all__ = [
    "AttentionMaps",
    "Descent",
    "Edit",
    "Objective",
    "On",
    "Where",
    "edit",
    "estimate_bytes",
    "keep",
    "load",
    "locate",
    "perturb",
    "record",
    "save",
    "steer",
]

_HOMES = {
    "AttentionMaps": "maps.recorded",
    "Descent": "objectives.descent",
    "Edit": "attention.edit",
    "KeptPass": "maps.kept",
    "Objective": "objectives.objective",
    "On": "verbs.places",
    "Relative": "objectives.descent",
    "StepMaps": "maps.step",
    "Trajectory": "inversion.trajectory",
    "Where": "attention.sites",
    "edit": "verbs.edit",
    "estimate_bytes": "verbs.record",
    "invert": "verbs.invert",
    "keep": "verbs.keep",
    "kept": "maps.kept",
    "load": "maps.reading",
    "locate": "verbs.locate",
    "perturb": "verbs.perturb",
    "record": "verbs.record",
    "retrace": "verbs.retrace",
    "save": "maps.store",
    "steer": "verbs.steer",
}
_FOLDERS = ("edits", "losses", "sprites")


def __getattr__(name: str) -> Any:
    """PEP 562."""
    if name in _FOLDERS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_FOLDERS, "__version__"])
