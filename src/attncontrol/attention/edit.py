"""What an edit of attention is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Where
from attncontrol.attention.source import SourcePass, Taken
from attncontrol.checks.arguments import Index, Share, Such, check, check_fields
from attncontrol.errors import EditError, SettingError


@dataclass(frozen=True, eq=False)
class Seen:
    """An output, and the call that those who look at the attention see beside it."""

    output: Tensor
    call: AttentionCall


Result = AttentionCall | Tensor | Seen
Editor = Callable[[AttentionCall, Moment], Result]
Setting = TypeVar("Setting")
Source = Annotated[
    Index | tuple[Index, ...] | SourcePass,
    Such("the number of an image, a tuple of one for every image, or a kept pass"),
]
"""The number of the image that all others take attention from, or for every image of the batch that
of its own source; a source's is itself. Or what ``keep`` kept, which needs no image."""
Progress = Callable[[float], float]
"""A setting that changes during the run, from the share of it that is done, 0 .. 1."""


class Edit(ABC):
    """An edit of attention for ``edit`` and ``perturb``: a final frozen dataclass below this class.

    It is called with an attention call and the moment of it, and returns the changed call wherever
    there is one, so that what looks at the attention sees the change:
    ``return call.replace(key=...)``. Only where no call has the wanted output it returns the output
    [batch heads query dim], computed of ``call.run()``, or ``Seen``, which has a call beside it:
    what is seen of an image must not depend on the others. Heads are independent of each other.
    Fields are what their annotations say; a ``__post_init__`` of its own calls this one first.
    """

    source: int | tuple[int, ...] | SourcePass | None = None
    """The image whose attention others take over; it rides along in every pass. Or a kept pass."""
    where: Where | Literal["localising"] | None = None
    """Where the edit belongs unless the user says so: "localising" are the sites that know best
    where words are, those of ``steer``; None: that must be said."""
    made_for: str = ""
    """For which models its layers are, to be said where they are not found."""
    modules: tuple[str, ...] = ()
    """Other modules whose outputs it changes: paths, their leading parts or shell patterns."""
    texts: tuple[str, ...] = ()
    """Texts beside that of the prompt: ``call.further`` in cross-attention, the hidden keys
    ``now.layout.further`` in joint attention."""
    own_words: tuple[str, ...] = ()
    """Fields with words, of mappings the keys, that the prompt of every edited image has: they are
    looked for before the first pass."""
    either_words: tuple[str, ...] = ()
    """The same of words that its source's prompt may have instead."""
    blends: bool = False
    """Whether ``stepped`` takes the latents of the source, and ``decoded`` its picture."""

    def __post_init__(self) -> None:
        check_fields(self)
        source = self.source
        if isinstance(source, tuple) and any(s not in source[s : s + 1] for s in source):
            raise SettingError(
                f"source={source} gives every image the number of the image that it takes "
                "attention from; such an image has its own number"
            )

    @abstractmethod
    def __call__(self, call: AttentionCall, now: Moment) -> Result: ...

    def acts(self, progress: float) -> bool:  # noqa: ARG002  # those of others look at it
        """Whether the edit changes anything at this share of the run, 0 .. 1."""
        return True

    def takes(self, call: AttentionCall, now: Moment) -> Taken | None:  # noqa: ARG002
        """What it takes of its source at a call while it acts, None for nothing: the arguments of
        ``now.source``, and what ``keep`` keeps."""
        return None

    def passed(
        self,
        name: str,  # noqa: ARG002
        inputs: Mapping[str, Any],  # noqa: ARG002
        output: Any,
        now: Moment,  # noqa: ARG002
    ) -> Any:
        """The output of one of ``modules``, called with ``inputs``; ``now`` has no layout."""
        return output

    def begun(self, latents: Tensor, drawn: Tensor, now: Moment) -> Tensor:  # noqa: ARG002
        """The latents [image ...] from which a run begins, where those of a trajectory took the
        place of those that the pipeline has ``drawn``; as they are given to ``stepped``."""
        return latents

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:  # noqa: ARG002
        """The latents [image ...] after a step of the scheduler, whose cells lie in the grid of
        ``now.layout``: [image channel *grid], or [image cell channel]."""
        return latents

    def decoded(self, pictures: Tensor, now: Moment) -> Tensor:  # noqa: ARG002
        """The pictures [image channel ... height width] as the autoencoder gives them when all are
        decoded in one call; ``now`` is that after the last step."""
        return pictures


def at(setting: float | Progress, progress: float, kind: Any = Share) -> float:
    """A setting as it is at this share of the run. Raises SettingError if a function says anything
    else than its ``kind``."""
    if not callable(setting):
        return setting
    value = setting(progress)
    check(f"a setting at {progress:.3g} of the run", value, kind)
    return value


def fitting(edit: Edit, result: Any, given: Tensor) -> Tensor:
    """Latents or pictures that an edit returns for those that it was ``given``. Raises EditError
    for anything else."""
    if not isinstance(result, Tensor) or result.shape != given.shape:
        shown = [*result.shape] if isinstance(result, Tensor) else result
        raise EditError(
            f"{type(edit).__name__} returned {shown!r:.80} for latents or pictures of "
            f"{[*given.shape]}; return a tensor of that shape, or what it was given"
        )
    return result.to(given)
