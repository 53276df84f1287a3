"""A further object in the same picture: Add-it (Tewel et al. 2025, arXiv 2411.07232), for flow
models with joint attention.

    Attn(Q, [gamma K; K_source], [V; V_source])     K_source of the picture alone
    z = z_source + s (e - e_source)                 before the step ``structure`` T, s its noise
    z = z_source + M (z - z_source)                 after the step ``blend`` T

e are the first latents, so the second line is (1 - s) x + s e of the source's picture x. Keys are
the source's up to the step T / 3, in single blocks of FLUX up to 2 T / 3. "auto" is the gamma with
which, in other blocks at the step T / 6, the text looks at its own picture ``ratio`` times as much
as at the source's. M is above Otsu's threshold in the attention to the subject in three steps, with
cells beside weighted 1 2 1. Officially SAM 2 makes a mask of that, "auto" calls the model for each
gamma tried, here for 1, 1.01 .. 1.2 with queries and keys as they are, and real photos have gamma =
1.1 and structure = 4 / 30.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.extended import extended
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.sites import Where
from attncontrol.attention.source import KEYS, Taken
from attncontrol.checks.arguments import Positive, Share
from attncontrol.edits._adding import blended, look_for, transferred
from attncontrol.edits._balance import measure, weighted
from attncontrol.edits._rows import but_source
from attncontrol.prompts.words import Word


@dataclass(frozen=True)
class AddIt(Edit):
    """Every image is the image ``source`` of the batch with the ``subject`` of its own prompt.

        with edit(pipe, AddIt("hat")):
            dog, with_hat = pipe(["a dog", "a dog with a hat"], generator=seeds).images

    ``structure`` and ``blend`` are left out if None; ``layers`` show where the subject is, all if
    none are named. Recorded maps are those before the change. Raises SettingError, WordError;
    CouplingError if the pipeline makes no image of that number.
    """

    subject: Word
    source: Source = 0
    gamma: Positive | Literal["auto"] = 1.05
    ratio: Positive = 1.05
    structure: Share | None = 1 / 15
    blend: Share | None = 0.5
    layers: tuple[str, ...] = ()
    where = Where(kind="joint")
    own_words = ("subject",)
    blends = True

    def takes(self, call: AttentionCall, now: Moment) -> Taken | None:
        share = (1 + ("single" in call.site.name)) / 3
        return KEYS if now.step.index <= steps_in(share, now.step.total) else None

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        taken, step, notes, seen = self.takes(call, now), now.step, now.notes(self), call
        if taken is not None:
            there, cells = now.source(call, self.source, *taken), now.layout.image_slice
            more, gamma = (there.key[:, :, cells], there.value[:, :, cells]), self.gamma
            looks = now.purpose == "own" and step.index == steps_in(1 / 6, step.total)
            if gamma == "auto" and looks and "single" not in call.site.name:
                measure(notes, call, more, now, self.source)
            gamma = 1.05 if gamma == "auto" else gamma
            seen = extended(weighted(notes, call, now, gamma, self.ratio), *more)
        look_for(self.subject, self.layers, notes, seen, now, self.source, self.blend)
        return call if seen is call else but_source(call, seen, now, self.source)

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:
        notes = now.notes(self)
        latents = transferred(latents, notes, now, self.source, self.structure)
        return blended(latents, notes, now, self.source, self.blend)
