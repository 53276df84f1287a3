"""What became of a job: a page with all its pictures, scores, and tables of them."""

from attncontrol.listing import namespace

__all__, __getattr__, __dir__ = namespace(__name__, __path__[0], {"prepare": "write"})
