"""Exceptions of attncontrol. Each is also a builtin, and each message says what was asked, what
exists and what to do.

AttnControlError
├── WordError (ValueError)           a word that is not in the prompt or cannot be located
├── SiteError (LookupError)          no attention site, head or block of this name
├── SettingError (ValueError)        a number, name or combination of settings out of its range
├── JobError (ValueError)            all that is wrong in a file of a job, line by line
├── LossError (ValueError)           an objective that returns no loss per picture
├── EditError (ValueError)           an edit that returns no attention
├── ResultsError (ValueError)        a folder of results that does not fit this run
├── WriteError (OSError)             a file or folder that cannot be written, or is not ours
├── NonFiniteError (ArithmeticError) NaN or infinity in attention, a loss or its gradient
├── CouplingError (RuntimeError)     the pipeline did not do what a context needs
├── ThreadError (RuntimeError)       two threads use one pipeline
└── UnsupportedError (NotImplementedError)  cannot be handled exactly
    ├── ModelError                   the pipeline or its denoiser
    ├── SchedulerError               the scheduler
    ├── BackendError                 the implementation of attention
    ├── CallError                    what the pipeline was called with
    ├── RecordError (ValueError)     a record, or a file that is none
    ├── SizeError (MemoryError)      more data than the limit
    └── PackageError (ImportError)   an optional package that is not installed
"""


class AttnControlError(Exception):
    """Base of all errors raised on purpose by attncontrol."""


class WordError(AttnControlError, ValueError):
    """A word is not in the prompt, lies beyond the text limit, or the prompt is unknown."""


class SiteError(AttnControlError, LookupError):
    """The model has no attention site, head or block that matches what was asked for."""


class SettingError(AttnControlError, ValueError):
    """A number, a name or a combination of settings lies outside its range."""


class JobError(AttnControlError, ValueError):
    """A file of a job is wrong. ``wrong`` are its mistakes, each with ``line``, ``field`` and
    ``text``."""

    def __init__(self, message: str, wrong: tuple[object, ...] = ()):
        super().__init__(message)
        self.wrong = wrong


class LossError(AttnControlError, ValueError):
    """An objective returned something that is no loss per picture, or that has no gradient."""


class EditError(AttnControlError, ValueError):
    """An edit returned something that is no attention, or that does not fit its place."""


class ResultsError(AttnControlError, ValueError):
    """Results were made with other settings, or do not suffice for what is computed of them."""


class WriteError(AttnControlError, OSError):
    """Something cannot be written, or would replace what this package did not make."""


class NonFiniteError(AttnControlError, ArithmeticError):
    """Attention, a loss or its gradient is NaN or infinite."""


class CouplingError(AttnControlError, RuntimeError):
    """The pipeline did not run, or ran in a way that the context cannot follow."""


class ThreadError(AttnControlError, RuntimeError):
    """A second thread uses a pipeline while a block is open for it."""


class UnsupportedError(AttnControlError, NotImplementedError):
    """Something cannot be handled exactly; its leaves say what."""


class ModelError(UnsupportedError):
    """The pipeline, its denoiser or its tokenizer cannot be handled exactly."""


class SchedulerError(UnsupportedError):
    """The scheduler, or a timestep of it, cannot be handled exactly."""


class BackendError(UnsupportedError):
    """Attention is computed in a way that cannot be observed or changed exactly."""


class CallError(UnsupportedError):
    """The pipeline was called with something that cannot be followed exactly."""


class RecordError(UnsupportedError, ValueError):
    """A file is no record that this version reads, or a record lacks what was asked of it."""


class SizeError(UnsupportedError, MemoryError):
    """A recording or a page would hold more than its limit."""


class PackageError(UnsupportedError, ImportError):
    """An optional package is not installed, or is not the version that was checked."""
