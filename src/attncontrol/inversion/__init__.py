"""How pictures that exist become trajectories of a model, and how these are retraced. One file for
each method: ``from attncontrol.inversion import Exact``."""

from attncontrol.listing import namespace

__all__, __getattr__, __dir__ = namespace(__name__, __path__[0])
