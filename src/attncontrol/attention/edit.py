"""What an edit of attention is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Share, check, check_fields

Result = AttentionCall | Tensor
Editor = Callable[[AttentionCall, Moment], Result]
Setting = TypeVar("Setting")
Progress = Callable[[float], float]
"""A setting that changes during the run, from the share of it that is done, 0 .. 1."""


class Edit(ABC):
    """An edit of attention for ``edit`` and ``perturb``: a final frozen dataclass below this class.

    It is called with an attention call and the moment of it, and returns the changed call wherever
    there is one, so that what looks at the attention sees the change:
    ``return call.replace(key=...)``. Only where no call has the wanted output it returns the output
    [batch heads query dim], computed of ``call.run()``. Heads are independent of each other.
    Fields are what their annotations say; a ``__post_init__`` of its own calls this one first.
    """

    source: int | None = None
    """The number of the image whose attention others take over; it rides along in every pass."""
    where: Where | None = None
    """Where the edit belongs unless the user says so; None: that must be said."""

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def __call__(self, call: AttentionCall, now: Moment) -> Result: ...

    def acts(self, progress: float) -> bool:  # noqa: ARG002  # those of others look at it
        """Whether the edit changes anything at this share of the run, 0 .. 1."""
        return True


def at(setting: float | Progress, progress: float, kind: Any = Share) -> float:
    """A setting as it is at this share of the run. Raises SettingError if a function says anything
    else than its ``kind``."""
    if not callable(setting):
        return setting
    value = setting(progress)
    check(f"a setting at {progress:.3g} of the run", value, kind)
    return value
