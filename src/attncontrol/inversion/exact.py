"""Inversion without error, by residuals (DirectEdit, 2026, arXiv 2605.02417).

    inversion   m = model(z', t)    z = (z' - b m) / a    d = z' - z
    retracing   m = model(z + d, t)    z' = a z + b m

z' has less noise than z. The model sees the same in both directions, so z' is what it was, whatever
the number of steps. With other guidance or another prompt m differs; z' is then set to what it was.
As published d is kept for every step; here it is the difference of the latents, which are kept.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attncontrol.inversion._method import Back, Inversion, on_path, straight
from attncontrol.inversion._schedule import Looks, Schedule
from attncontrol.running.calls import DenoiserCall


@dataclass(frozen=True)
class Exact(Inversion):
    """The picture comes back as the autoencoder gives it, with any guidance and number of steps.

    trajectory = invert(pipe, photo, "a cat", method=Exact(), num_inference_steps=25)
    """

    by_step: ClassVar[bool] = True

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        return straight(picture, schedule)

    def fed(self, call: DenoiserCall, back: Back) -> DenoiserCall:
        after, latents = call.step.index + 1, call.latents.clone()
        for picture, image in back.retraced.items():
            for branch in call.branches:
                row = call.rows(branch).start + call.images.index(image)
                seen = back.schedule.scale(after) * back.latents[picture, after]
                latents[row] = seen.to(latents).view_as(latents[row])
        return call.with_latents(latents)

    def after(self, latents: Tensor, call: DenoiserCall, back: Back) -> Tensor:
        return on_path(latents, call, back)
