"""Negative-prompt inversion (Miyake et al. 2023, arXiv 2305.16807).

    z = (z' - b model(z', t, C)) / a
    back   e = model(z, t, C) + w (model(z, t, C_edit) - model(z, t, C))

The embedding of the source's prompt C stands for that of the empty one, which null-text inversion
would optimise towards it; so guidance of the source cancels.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attncontrol.errors import CallError
from attncontrol.inversion._method import Back, Inversion, straight
from attncontrol.inversion._schedule import Looks, Schedule
from attncontrol.running.calls import DenoiserCall


@dataclass(frozen=True)
class NegativePrompt(Inversion):
    """The prompt of the picture that is retraced is the negative prompt of all images that start
    from its noise. The picture comes back as by DDIM inversion without guidance.

        trajectory = invert(pipe, photo, "a cat", method=NegativePrompt())

    Models that run both branches apart (FLUX) are refused: give them negative_prompt=... yourself.
    """

    by_step: ClassVar[bool] = True
    beside: ClassVar[bool] = True

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        return straight(picture, schedule)

    def fed(self, call: DenoiserCall, back: Back) -> DenoiserCall:
        require_branches(call, self)
        cond, uncond = call.rows("cond"), call.rows("uncond")
        told = list(range(len(call.latents)))
        for place, image in enumerate(call.images):
            source = back.retraced[back.of[image]]
            told[uncond.start + place] = cond.start + call.images.index(source)
        return call.told(told)


def require_branches(call: DenoiserCall, method: Inversion) -> None:
    """Raises CallError where there is no unconditional branch beside the conditional one, or a
    third one."""
    if "reference" in call.branches:
        raise CallError(
            f"{type(method).__name__} changes the unconditional branch alone, but the guidance has "
            "one of reference pictures too: call the pipeline without these, or invert with Exact()"
        )
    if not {"uncond", "cond"} <= {*call.branches}:
        raise CallError(
            f"{type(method).__name__} changes the unconditional branch, but the denoiser is called "
            f"with {' and '.join(call.branches)} alone: call the pipeline with guidance_scale "
            "above 1, or invert with Exact()"
        )
