"""Numbers of pictures by name: of the bundled scorer, of models of transformers, or one's own."""

from attncontrol.listing import namespace

_FUNCTIONS = {"scores_of": "score", "values_of": "score"}
__all__, __getattr__, __dir__ = namespace(__name__, __path__[0], _FUNCTIONS)
