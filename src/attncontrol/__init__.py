"""Record and edit attention inside text-to-image diffusion models, and build on it."""

from attncontrol import testbed
from attncontrol.descent import Descent
from attncontrol.families import family_of
from attncontrol.losses.attend_and_excite import AttendAndExcite
from attncontrol.maps import AttentionMaps, StepMaps
from attncontrol.record import estimate_bytes, record
from attncontrol.sites import Where
from attncontrol.steer import Trace, steer
from attncontrol.store import load, save
from attncontrol.tokens import locate

__version__ = "0.1.0"
__all__ = [
    "AttendAndExcite",
    "AttentionMaps",
    "Descent",
    "StepMaps",
    "Trace",
    "Where",
    "estimate_bytes",
    "family_of",
    "load",
    "locate",
    "record",
    "save",
    "steer",
    "testbed",
]
