"""What a method of inversion says: the way from the picture to noise, and what holds on the way
back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from attncontrol.attention.source import Facts
from attncontrol.checks.arguments import check_fields
from attncontrol.inversion._schedule import Look, Looks, Schedule
from attncontrol.inversion._solver import Places
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session


class Learned(NamedTuple):
    """What a method optimises: ``embeddings`` [picture step position channel] of the unconditional
    branch, and ``nouns`` [picture step token channel], what the text encoder reads at the positions
    ``places`` [picture token] of the picture's prompt; -1 is none."""

    embeddings: Tensor
    nouns: Tensor | None = None
    places: Tensor | None = None

    def of(self, pictures: Sequence[int]) -> "Learned":
        return self._each(lambda tensor: tensor[list(pictures)])

    def on(self, device: str) -> "Learned":
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Learned":
        embeddings, nouns, places = self
        others = [of if of is None else change(of) for of in (nouns, places)]
        return Learned(change(embeddings), *others)


@dataclass(frozen=True, eq=False)
class Back:
    """A run on its way back: ``facts`` and ``latents`` [picture step + 1 ...] of the trajectory,
    and what was ``learned`` for it; ``retraced`` is picture -> image that retraces it, ``of`` image
    -> picture from whose noise it starts."""

    run: Session
    schedule: Schedule
    facts: Facts
    latents: Tensor
    learned: Learned | None
    retraced: Mapping[int, int]
    of: Mapping[int, int]


@dataclass(frozen=True)
class Inversion(ABC):
    """A method. Its fields are settings.

    ``flow``: it is one for rectified flow alone. ``solver``: it evaluates between the steps of the
    scheduler, at ``places``. ``gradients``: it needs those of the model, for embeddings that it
    optimises. ``by_step``: on the way to noise it evaluates the model once for each step, at the
    timestep of this. ``beside``: what it does to edits needs the picture in their batch.
    """

    flow: ClassVar[bool] = False
    solver: ClassVar[bool] = False
    gradients: ClassVar[bool] = False
    by_step: ClassVar[bool] = False
    beside: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    def require(self, run: Session) -> None:  # noqa: B027
        """Raises ModelError for models that it is not for."""

    @abstractmethod
    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        """From the latents [picture ...] of clean pictures."""

    def fed(self, call: DenoiserCall, back: Back) -> DenoiserCall:  # noqa: ARG002
        """What the denoiser is given on the way back."""
        return call

    def after(self, latents: Tensor, call: DenoiserCall, back: Back) -> Tensor:  # noqa: ARG002
        """What becomes of latents after a step on the way back."""
        return latents

    def learned(
        self, back: Back, call: Mapping[str, Any], keep: Callable[[Learned], None]
    ) -> Learned | None:
        """What is optimised, if anything; that of ``back`` is done. ``keep`` sees it grow."""
        del back, call, keep
        return None

    def places(self, levels: Sequence[float]) -> Places:
        """Where the model is evaluated on the way back; see ``_solver``."""
        del levels
        return ()


def on_path(latents: Tensor, call: DenoiserCall, back: Back) -> Tensor:
    """The retracing images put where their pictures were."""
    latents = latents.clone()
    for picture, image in back.retraced.items():
        place = call.images.index(image)
        latents[place] = back.latents[picture, call.step.index + 1].to(latents)
    return latents


def straight(picture: Tensor, schedule: Schedule) -> Looks:
    """Every step backwards, from what the model predicts of the latents after it at the timestep
    before it, as DDIM inversion does: m(c' z', t)."""
    path = [picture]
    for place in reversed(range(len(schedule.updates))):
        update = schedule.updates[place]
        prediction = yield Look(path[0], schedule.scale(place + 1), update.timestep)
        path.insert(0, update.back(path[0], prediction))
    return path
