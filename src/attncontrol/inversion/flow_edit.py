"""FlowEdit (Kulikov et al. 2024, arXiv 2412.08629): from a picture straight to its edit, along the
difference of two velocities of rectified flow.

    z = (1 - s) x + s n              n: new noise in every step, s its level
    d = 0 before ``start``
    d' = d + (s' - s) (model(z + d, target) - model(z, source))
    x + d is the edit

x is the picture. The pipeline makes Euler's step of z and of z + d, whose difference afterwards is
d'; the picture is then put on (1 - s') x + s' n' and the others on that + d'.

As officially n_avg is 1 and n_min 0. Guidance is that of the run, for source and target, where
the official code has 3.5 and 13.5 on SD3, 1.5 and 5.5 on FLUX.1 (n_max / T 33 of 50, 24 of 28).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attncontrol.attention.moment import steps_in
from attncontrol.checks.arguments import Index, Share
from attncontrol.inversion._method import Back, Inversion, on_path
from attncontrol.inversion._schedule import Look, Looks, Schedule
from attncontrol.running.calls import DenoiserCall


@dataclass(frozen=True)
class FlowEdit(Inversion):
    """No inversion: the other images of the run become edits of the picture, which comes back as
    the autoencoder gives it. For SD3 and FLUX.1; the network is asked once beforehand.

        trajectory = invert(pipe, photo, "a red cat", method=FlowEdit(), num_inference_steps=50)
        with retrace(pipe, trajectory):
            source, blue = pipe(["a red cat", "a blue cat"], num_inference_steps=50).images

    Before the share ``start`` of the steps nothing changes: less of it changes more. ``seed`` is
    that of the noise.
    """

    flow: ClassVar[bool] = True
    beside: ClassVar[bool] = True

    start: Share = 0.34
    seed: Index = 0

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        yield Look(picture, 1.0, schedule.updates[-1].timestep)  # a run, to be told from others
        generator = torch.Generator().manual_seed(self.seed)
        path = []
        for level in schedule.levels:
            noise = torch.randn(picture.shape[1:], generator=generator, dtype=picture.dtype)
            path.append((1 - level) * picture + level * noise.to(picture))
        return path

    def after(self, latents: Tensor, call: DenoiserCall, back: Back) -> Tensor:
        found = on_path(latents, call, back)
        begun = call.step.index >= steps_in(self.start, call.step.total)
        for place, image in enumerate(call.images):
            source = call.images.index(back.retraced[back.of[image]])
            if place != source:
                found[place] = found[source] + begun * (latents[place] - latents[source])
        return found
