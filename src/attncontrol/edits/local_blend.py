"""The source but where what changes is: LocalBlend of prompt-to-prompt (Hertz et al. 2022, arXiv
2208.01626).

    A = attention to the words, mean over heads and layers, sum so far; R = the source's to others
    M = max over 3 x 3 of 16 x 16 cells of A, S of R
    B = in either picture  M / max M > threshold  and  A / max A >= R / max R
    B = S / max S <= held                            before the share ``start`` of the steps
    z = z_source + B (z - z_source)                  after each step but those of the first 5 %
    x = x_source + B (x - x_source)                  the decoded picture, a cell beyond B

Officially A is of 16 x 16 cells for pictures of 512 pixels; here it is of the sites that know words
best, and M reaches as far on other grids, a cell at least for new nouns. The official threshold is
0.3, words are given, R / max R has one of its own, and only the version for real pictures has a
``start``, 0.2. What is kept before it is not official, nor is the last line: decoders carry far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import onto, softly
from attncontrol.attention.source import MAPS, Taken
from attncontrol.checks.arguments import Share
from attncontrol.edits._blending import look_apart, own_cells


@dataclass(frozen=True)
class LocalBlend(Edit):
    """Every image keeps the picture of the image ``source`` of the batch outside of ``words``,
    which either prompt has; outside of what the prompts say differently, if none are named.

        with edit(pipe, LocalBlend()), edit(pipe, Replace()):
            cat, dog = pipe(["a cat and a car", "a dog and a car"], generator=same_seeds).images

    ``without`` are words that stay, R; None: the subjects that both prompts have and say alike.
    ``threshold`` is 0.15, in joint attention 0.2. Attention stays as it is; ``pixels=False``: so
    does the decoded picture. Raises SettingError, WordError; CouplingError if there is no source.
    """

    words: Sequence[str] = ()
    without: Sequence[str] | None = None
    source: Source = 0
    start: Share = 0.2
    threshold: Share | None = None
    held: Share = 0.3
    pixels: bool = True
    where, blends = "localising", True
    either_words = ("words", "without")

    def takes(self, call: AttentionCall, now: Moment) -> Taken:  # noqa: ARG002
        return MAPS

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        look_apart(now.notes(self), call, now, self.source, self.words, self.without)
        return call

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:
        if now.progress < min(self.start, 0.05):
            return latents
        result, sources = latents.clone(), now.latents_of(self.source, latents)
        for image, seen in now.notes(self).items():
            seen["blend"] = own_cells(seen, self.threshold, self.held, now.progress < self.start)
            inside, place = onto(seen["blend"], latents, now.layout), now.images.index(image)
            result[place] = torch.where(inside, latents[place], sources[place])
        return result

    def decoded(self, pictures: Tensor, now: Moment) -> Tensor:
        sources = now.pictures_of(self.source, pictures) if self.pixels else None
        if sources is None or now.progress < self.start:
            return pictures
        result = pictures.clone()
        for image, seen in now.notes(self).items():
            place, share = now.images.index(image), softly(seen["blend"], pictures)
            result[place] = sources[place] + share * (pictures[place] - sources[place])
        return result
