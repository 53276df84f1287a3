"""The steps of a scheduler as linear maps, forwards and backwards.

    z' = a z + b m,    m = model(c z, t)        from more noise, z, to less, z'
    z = (z' - b m) / a                          backwards

m is the prediction, whatever it is of: noise, velocity, picture. a, b and c are what the scheduler
itself makes of (z, m) = (1, 0) and (0, 1) and of z = 1.
"""

import copy
import math
from collections.abc import Generator
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from attncontrol.errors import SchedulerError

_KNOWN = (
    "DDIMScheduler", "CogVideoXDDIMScheduler", "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
)  # fmt: skip
_NOT_LINEAR = ("clip_sample", "thresholding")


@dataclass(frozen=True)
class Update:
    """One step: ``timestep`` is t, ``scale`` c; a is ``keeps`` and b is ``gain``."""

    timestep: float
    scale: float
    keeps: float
    gain: float

    def forward(self, latents: Tensor, prediction: Tensor) -> Tensor:
        """z' of z."""
        return self.keeps * latents + self.gain * prediction

    def back(self, latents: Tensor, prediction: Tensor) -> Tensor:
        """z of z'."""
        return (latents - self.gain * prediction) / self.keeps


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, ``trained`` is how many timesteps the model was trained with."""

    updates: tuple[Update, ...]
    trained: int

    def resembles(self, other: "Schedule") -> bool:
        """But for rounding, which differs between devices."""
        own, theirs = ([*map(astuple, each.updates)] for each in (self, other))
        return len(own) == len(theirs) and bool(np.allclose(own, theirs, rtol=1e-4, atol=1e-6))

    def scale(self, place: int) -> float:
        """c of the latents before step ``place``; 1 after the last one."""
        return self.updates[place].scale if place < len(self.updates) else 1.0

    @property
    def levels(self) -> tuple[float, ...]:
        """s before every step of rectified flow, where b is s' - s, and 0 after the last one."""
        count = len(self.updates) + 1
        return tuple(math.fsum(-update.gain for update in self.updates[i:]) for i in range(count))


class Look(NamedTuple):
    """Where the denoiser is evaluated: at c z and t."""

    latents: Tensor
    scale: float
    timestep: float


Looks = Generator[Look, Tensor, list[Tensor]]
"""Yields where to look, is sent what the denoiser predicts there, and returns the latents before
every step and after the last. Where it looks depends on no prediction but in ``latents``."""


def schedule_of(scheduler: Any) -> Schedule:
    """Of a scheduler whose timesteps are set. Raises SchedulerError."""
    copied, kind = copy.deepcopy(scheduler), type(scheduler)
    latents, prediction = torch.eye(2, dtype=torch.float64, device=scheduler.timesteps.device)
    updates = []
    for timestep in copied.timesteps:
        scale = 1.0
        if hasattr(kind, "scale_model_input"):
            scale = float(kind.scale_model_input(copied, latents, timestep)[0])
        after = kind.step(copied, prediction, timestep, latents, return_dict=False)[0].tolist()
        if not all(map(math.isfinite, (scale, *after))) or after[0] == 0:
            raise SchedulerError(
                f"{kind.__name__} begins from noise alone (timestep {float(timestep):g}), which "
                'no prediction leads back to; use timestep_spacing="leading"'
            )
        updates.append(Update(float(timestep), scale, *after))
    return Schedule(tuple(updates), scheduler.config.num_train_timesteps)


def require_invertible(scheduler: Any) -> None:
    """Raises SchedulerError for steps that are no linear maps of the latents and one prediction."""
    name, config = type(scheduler).__name__, scheduler.config
    if name not in _KNOWN:
        raise SchedulerError(
            f"{name} cannot be inverted: its steps draw noise, or take more than one prediction; "
            "use DDIM, Euler or FlowMatchEuler: "
            "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)"
        )
    if config.get("stochastic_sampling"):
        raise SchedulerError(
            f"{name} draws noise in every step, which cannot be inverted: "
            f"{name}.from_config(pipe.scheduler.config, stochastic_sampling=False)"
        )
    if clipped := [setting for setting in _NOT_LINEAR if config.get(setting)]:
        raise SchedulerError(
            f"{name} clips what is predicted, which cannot be inverted: "
            f"{name}.from_config(pipe.scheduler.config, {clipped[0]}=False)"
        )


def is_flow(scheduler: Any) -> bool:
    """Whether it is of rectified flow, in which a is 1 and b the difference of the noise. One that
    is turned round, in which it is that of the picture, is not."""
    return kind_of(scheduler) == "FlowMatchEulerDiscreteScheduler"


def kind_of(scheduler: Any) -> str:
    """Its class, and whether it is turned round."""
    turned = " with invert_sigmas=True" if scheduler.config.get("invert_sigmas") else ""
    return f"{type(scheduler).__name__}{turned}"
