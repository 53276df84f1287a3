"""DDIM inversion (Song et al. 2021, arXiv 2010.02502; Dhariwal and Nichol 2021, arXiv 2105.05233),
in rectified flow Euler's method backwards.

    z = (z' - b model(z', t)) / a

z' has less noise than z. For DDIM that is z = sqrt(a_t) x_0 + sqrt(1 - a_t) e with the noise e and
the picture x_0 that the model predicts of z' at t, as in the code of null-text inversion.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attncontrol.inversion._method import Inversion, straight
from attncontrol.inversion._schedule import Looks, Schedule


@dataclass(frozen=True)
class DDIMInversion(Inversion):
    """The picture comes back nearly, if at all, with guidance_scale=1 and many steps; nothing but
    the noise is taken from it.

        trajectory = invert(pipe, photo, "a cat", method=DDIMInversion())
    """

    by_step: ClassVar[bool] = True

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        return straight(picture, schedule)
