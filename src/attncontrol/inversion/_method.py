"""What a method of inversion says: the way from the picture to noise, and what holds on the way
back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from attncontrol.checks.arguments import check_fields
from attncontrol.inversion._schedule import Look, Looks, Schedule
from attncontrol.inversion._solver import Places
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session


@dataclass(frozen=True, eq=False)
class Back:
    """A run on its way back: ``latents`` [picture step + 1 ...] and ``embeddings`` [picture step
    position channel] of the trajectory; ``retraced`` is picture -> image that retraces it, ``of``
    image -> picture from whose noise it starts."""

    schedule: Schedule
    latents: Tensor
    embeddings: Tensor | None
    retraced: Mapping[int, int]
    of: Mapping[int, int]


@dataclass(frozen=True)
class Inversion(ABC):
    """A method. Its fields are settings.

    ``flow``: it is one for rectified flow alone. ``solver``: it evaluates between the steps of the
    scheduler, at ``places``. ``gradients``: it needs those of the model, for embeddings that it
    optimises.
    """

    flow: ClassVar[bool] = False
    solver: ClassVar[bool] = False
    gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        """From the latents [picture ...] of clean pictures."""

    def fed(self, call: DenoiserCall, back: Back) -> DenoiserCall:  # noqa: ARG002
        """What the denoiser is given on the way back."""
        return call

    def after(self, latents: Tensor, call: DenoiserCall, back: Back) -> Tensor:  # noqa: ARG002
        """What becomes of latents after a step on the way back."""
        return latents

    def embeddings(
        self, run: Session, back: Back, call: Mapping[str, Any], keep: Callable[[Tensor], None]
    ) -> Tensor | None:
        """[picture step position channel] of the unconditional branch, where they are optimised;
        those of ``back`` are done. ``keep`` sees them grow."""
        del run, back, call, keep
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
