"""Exceptions of attncontrol. Each is also a builtin, and each message says what was asked, what
exists and what to do.

AttnControlError
├── WordError (ValueError)               a word that is not in the prompt, is truncated, or cannot be located
├── SiteError (LookupError)              no attention site matches
├── UnsupportedError (NotImplementedError)   a model, scheduler or attention backend that cannot be handled exactly
├── CouplingError (RuntimeError)         the pipeline did not call what a context needs (nothing recorded, no step)
├── NonFiniteError (ArithmeticError)     NaN or infinity in a loss or gradient
└── SettingsError (ValueError)           a folder of results was made with other settings
"""


class AttnControlError(Exception):
    """Base of all errors raised on purpose by attncontrol."""


class WordError(AttnControlError, ValueError):
    """A word is not in the prompt, lies beyond the text limit, or the prompt is unknown."""


class SiteError(AttnControlError, LookupError):
    """No attention site of the model matches what was asked for."""


class UnsupportedError(AttnControlError, NotImplementedError):
    """The model, scheduler or attention backend cannot be handled exactly."""


class CouplingError(AttnControlError, RuntimeError):
    """The pipeline did not run, or ran in a way that the context cannot follow."""


class NonFiniteError(AttnControlError, ArithmeticError):
    """A loss or its gradient is NaN or infinite."""


class SettingsError(AttnControlError, ValueError):
    """A folder of results, to be continued, was made with other settings."""
