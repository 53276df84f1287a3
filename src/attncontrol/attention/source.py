"""What edits take attention from: images of the same batch, or a pass that was kept."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.sites import Site
from attncontrol.errors import CallError, CouplingError
from attncontrol.prompts.text import Text
from attncontrol.prompts.tokens import Token

Part = Literal["picture", "all"]
Name = Literal["query", "key", "value", "maps"]


class Taken(NamedTuple):
    """What an edit takes of a source at a call of attention, in these ``branches`` (None: in all).

    ``part="picture"`` leaves out the text of joint attention. "maps" is how much each cell of the
    picture looks at each token of a word in the conditional branch, mean over heads.
    """

    part: Part = "picture"
    names: tuple[Name, ...] = ("query", "key", "value")
    branches: tuple[str, ...] | None = None


LOOK, KEYS = Taken(names=("query", "key")), Taken(names=("key", "value"))
MAPS = Taken(names=("maps",))


def kept_name(name: str, part: Part, call: AttentionCall) -> str:
    """What a query, key or value of a part of the sequence is kept as."""
    return f"{name} with text" if part == "all" and call.site.kind == "joint" else name


def kept_names(taken: Taken, call: AttentionCall) -> Iterator[str]:
    """What is kept of a call, in each branch."""
    for name in taken.names:
        yield name if name == "maps" else kept_name(name, taken.part, call)
    if taken.part == "all" and "key" in taken.names and call.mask is not None:
        yield from ("mask",) * (call.mask.ndim == 4)


class Place(NamedTuple):
    """Where in a pass a tensor [image ...] was: query, key, value, mask or maps of a site in a
    branch, an output of a module, the latents after the step, or the decoded picture. ``stage`` is
    the evaluation within the step."""

    name: str
    step: int
    view: int = 0
    branch: str = ""
    site: str = ""
    stage: int = 0

    def __str__(self) -> str:
        return "/".join(map(str, self if self.stage else self[:-1]))


@dataclass(frozen=True)
class Facts:
    """What run a pass is of. A run that takes attention from it has the same, but for the text:
    the ``prompts`` and ``tokens`` of the images, None and empty where they are not known."""

    model: str
    sites: tuple[Site, ...]
    scheduler: str
    steps: int
    timesteps: tuple[float, ...]
    grid: tuple[int, ...]
    branches: tuple[str, ...]
    prompts: tuple[str | None, ...]
    tokens: tuple[tuple[Token, ...], ...]


class SourcePass(ABC):
    """A pass of a pipeline from which others take attention, without gradient."""

    images: tuple[int, ...] | None = None
    """The chosen ones of its images, None for all."""

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """Raises CouplingError if the pass was not finished."""

    @abstractmethod
    def __contains__(self, place: object) -> bool: ...

    @abstractmethod
    def take(self, place: Place) -> Tensor:
        """[image ...] of the chosen images. Raises CouplingError for what was not kept."""

    def require(self, place: Place) -> None:
        """Raises CouplingError for what was not kept."""
        if place in self:
            return
        if place.branch not in ("", *self.facts.branches):
            raise CouplingError(
                f"the edit takes from the branch {place.branch!r}, but the source was kept with "
                f"{', '.join(self.facts.branches)} alone: keep it with the same guidance"
            )
        at = f" at {place.site}" if place.site else ""
        raise CouplingError(
            f"the edit takes the {place.name} of step {place.step}{at}, which the source does not "
            "have: keep(pipe, [...]) it for this edit with these settings"
        )

    @property
    def chosen(self) -> tuple[int, ...]:
        """The numbers of its images, in their order."""
        return tuple(range(len(self.facts.prompts))) if self.images is None else self.images

    @cached_property
    def text(self) -> Text:
        """What the chosen images were told."""
        facts, chosen = self.facts, self.chosen

        def read(image: int) -> Sequence[Token]:
            if tokens := facts.tokens[chosen[image]]:
                return tokens
            raise CallError(
                "the words of the source are not known: let the pipeline encode the prompt inside "
                "keep(...)"
            )

        return Text(tuple(facts.prompts[image] for image in chosen), lambda i: tuple(read(i)))

    def of(self, image: int) -> int:
        """Which of the chosen images another one takes from: the only one, or that of its
        number."""
        return 0 if len(self.chosen) == 1 else image


def words_of(text: Text, image: int) -> tuple[int, ...]:
    """The positions to which the maps of a kept image are."""
    return tuple(token.index for token in text.tokens(image) if not token.special)


Source = int | Sequence[int] | SourcePass
"""The image that others take attention from, for every image of the batch that of its source, or a
pass that was kept."""
