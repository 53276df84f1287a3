"""Changes of attention itself. One file for each: a function of one attention call, exact around an
untouched kernel: ``from attncontrol.edits import SoftIdentity``."""

from attncontrol.listing import namespace

__all__, __getattr__, __dir__ = namespace(__name__, __path__[0])
