"""Record and edit attention inside text-to-image diffusion models, and build on it."""

from attncontrol import sprites
from attncontrol.attention.sites import Where
from attncontrol.families.known import family_of
from attncontrol.losses.attend_and_excite import AttendAndExcite
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.step import StepMaps
from attncontrol.maps.store import load, save
from attncontrol.objectives.descent import Descent
from attncontrol.verbs.locate import locate
from attncontrol.verbs.record import estimate_bytes, record
from attncontrol.verbs.steer import Trace, steer

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
