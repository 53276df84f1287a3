"""Test-time losses, one file per paper: ``from attncontrol.losses import SynGen``.

By name, as on the command line: ``methods()`` lists them, ``method("a-star", words)`` makes one.
"""

from attncontrol.listing import namespace

__all__, __getattr__, __dir__ = namespace(
    __name__, __path__[0], {"method": "_method", "needs": "_method", "methods": "_names"}
)
