"""Euler steps of a scheduler of rectified flow that make the steps of another solver.

The latents y_k at s_k between evaluations are z at b_k and a part of the way from there:

    y_k = z + o_k,   z' = z + (b_k+1 - b_k) v_k,   o_k+1 = (s_k+1 - b_k+1) v_k
    y_k+1 = y_k - o_k + (s_k+1 - b_k) v_k,   v_k = model(y_k, s_k)

so before Euler's step from s_k to s_k+1 the latents get (s_k - b_k) v_k - o_k. A change of y, by
whatever context, is one of z.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attncontrol.running.observers import observe
from attncontrol.running.own import caller

Places = Sequence[tuple[float, float]]
"""(s, b) of every evaluation."""


@dataclass(eq=False)
class Solving:
    """One run after another; ``timed`` sees the scheduler's own schedule before it is changed.
    ``hidden`` says whether a run is none of them, but that of a context which is alone."""

    pipe: Any
    places_of: Callable[[Sequence[float]], Places]
    timed: Callable[[Any], None]
    hidden: Callable[[], bool]
    places: Places = ()
    index: int = 0
    offset: Tensor | float = 0.0
    prediction: list[Tensor] = field(default_factory=list)

    def set(self, output: Any) -> Any:
        """The schedule gets the places of the evaluations."""
        scheduler = self.pipe.scheduler
        if caller() is self.pipe and not self.hidden():
            self.timed(scheduler)
            self.places = [*self.places_of(scheduler.sigmas.tolist()), (0.0, 0.0)]
            self.index, self.offset = 0, 0.0
            sigmas = torch.tensor([s for s, _ in self.places]).to(scheduler.sigmas)
            scheduler.sigmas = sigmas
            trained = scheduler.config.num_train_timesteps
            scheduler.timesteps = (sigmas[:-1] * trained).to(scheduler.timesteps)
        return output

    def step(self, bound: dict[str, Any]) -> None:
        """Before a step of the scheduler."""
        if caller() is not self.pipe or self.hidden() or self.index + 1 >= len(self.places):
            return
        velocity, sample = bound["model_output"], bound["sample"]
        (noise, base), (noise_after, base_after) = self.places[self.index : self.index + 2]
        bound["sample"] = sample + (noise - base) * velocity - self.offset
        self.index, self.offset = self.index + 1, (noise_after - base_after) * velocity


@contextmanager
def solved(pipe: Any, solving: Solving) -> Iterator[None]:
    """Until the block ends."""
    leave = [
        observe(pipe.scheduler, "set_timesteps", lambda _: None, solving.set),
        observe(pipe.scheduler, "step", solving.step),
    ]
    try:
        yield
    finally:
        for each in leave:
            each()
