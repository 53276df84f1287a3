"""The source but in a region: latents blended after every step, as in blended latent diffusion
(Avrahami et al. 2022, arXiv 2206.02779).

    z = noise of its own in M                        before the first step, ``anew``
    z = z_source + M (z - z_source)                  after each step
    x = x_source + m (x - x_source)                  the decoded picture

M is 1 in all cells that the region touches, m the region in pixels, so what lies outside is the
source's to the last bit. In the paper the source is a picture with the noise of the step, which a
retraced photo has, every run is ``anew``, and the decoder is tuned instead of the last line.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, coverage, require_region
from attncontrol.edits._hole import drawn_again, filled


@dataclass(frozen=True)
class Within(Edit):
    """Every image is the image ``source`` of the batch outside of ``region``, a box (left, top,
    right, bottom) in 0 .. 1 or a mask [height width], 1 where it may change; beside other edits.

        with edit(pipe, Within((0.5, 0.0, 1.0, 1.0))), edit(pipe, Replace()):
            cat, dog = pipe(["a cat and a car", "a dog and a car"], generator=same_seeds).images

    All runs in ``retrace`` begin with the noise that the picture became, which has room for what
    is in it; ``anew``: in the region with what the pipeline draws, as for new things. Attention
    stays as it is. Raises SettingError; CouplingError if there is no source.
    """

    region: Region
    source: Source = 0
    anew: bool = False
    where, blends = "localising", True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_region(self.region)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:  # noqa: ARG002
        return call

    def begun(self, latents: Tensor, drawn: Tensor, now: Moment) -> Tensor:
        if not self.anew:
            return latents
        return drawn_again(latents, drawn, self._touched(now), now, self.source)

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:
        around = now.latents_of(self.source, latents)
        return filled(latents, around, self._touched(now), now, self.source)

    def decoded(self, pictures: Tensor, now: Moment) -> Tensor:
        sources = now.pictures_of(self.source, pictures)
        if sources is None:
            return pictures
        share = coverage(self.region, *pictures.shape[-2:]).to(pictures)
        return torch.where(share > 0, sources + share * (pictures - sources), sources)

    def _touched(self, now: Moment) -> Tensor:
        """The cells that the region touches."""
        return coverage(self.region, *now.layout.grid[-2:]) > 0
