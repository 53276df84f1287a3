"""PnP inversion (direct inversion; Ju et al. 2023, arXiv 2310.01506).

    inversion   z* = (z*' - b model(z*', t)) / a
    retracing   z' = a z* + b model(z*, t),    z' <- z' + (z*' - z')

z' has less noise than z. The difference in brackets, of the run with the guidance of the edit, is
added to the source alone, so z' = z*': that is what is done here, whatever the guidance is.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attncontrol.inversion._method import Back, Inversion, on_path, straight
from attncontrol.inversion._schedule import Looks, Schedule
from attncontrol.running.calls import DenoiserCall


@dataclass(frozen=True)
class PnPInversion(Inversion):
    """The picture comes back as the autoencoder gives it; the model sees z* of every step, where
    ``Exact`` shows it what it saw while the picture was inverted.

        trajectory = invert(pipe, photo, "a cat", method=PnPInversion())
    """

    by_step: ClassVar[bool] = True

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        return straight(picture, schedule)

    def after(self, latents: Tensor, call: DenoiserCall, back: Back) -> Tensor:
        return on_path(latents, call, back)
