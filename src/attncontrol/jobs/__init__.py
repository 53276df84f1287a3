"""Many pictures from one file: jobs that are checked whole, made in batches, and gone on with."""

from attncontrol.listing import namespace

_FUNCTIONS = {"read_job": "files", "plan": "batches", "run": "engine", "read": "index"}
__all__, __getattr__, __dir__ = namespace(__name__, __path__[0], _FUNCTIONS)
