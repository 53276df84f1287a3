"""Objects that vanish: the removal of DesignEdit (Jia et al. 2024, arXiv 2403.14487).

    K = (1 - M) K                 in self-attention: logits of the place M become 0, first 80 %
    z = z_source + M (z - z_source)                  after each of the first 82 % of the steps

M is the region, ``grow`` of the picture larger to each side: of 20 of 1024 pixels in all, as
officially. Only conditional rows are changed, as officially. There the source is an inverted photo,
its self-attention alone is masked (of SDXL), and not in the first step; here also the picture's
keys of joint attention, from the first step on.
"""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.regions import Region, coverage, grown, on_grid, require_region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Share
from attncontrol.edits._hole import filled, hidden


@dataclass(frozen=True)
class Remove(Edit):
    """Every image is the image ``source`` of the batch without what is in ``region``, a box (left,
    top, right, bottom) in 0 .. 1 or a mask [height width].

        with edit(pipe, Remove((0.5, 0.2, 1.0, 0.9))):
            both, one = pipe(["a cat and a frog", "a cat"], generator=same_seeds).images

    ``masked`` and ``kept`` are the shares of the steps. ``soft=False`` hides the keys wholly, with
    recorded maps of before. Raises SettingError; CouplingError if the pipeline makes no image of
    that number.
    """

    region: Region
    source: Source = 0
    masked: Share = 0.8
    kept: Share = 0.82
    grow: Share = 0.01
    soft: bool = True
    where = Where(kind=("self", "joint"))
    blends = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_region(self.region)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        if now.step.index >= steps_in(self.masked, now.step.total):
            return call
        share = coverage(grown(self.region, self.grow), *now.layout.grid[-2:])
        return hidden(call, now, self.source, share, self.soft)

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:
        if now.step.index >= steps_in(self.kept, now.step.total):
            return latents
        hole = on_grid(grown(self.region, self.grow), *now.layout.grid[-2:])
        return filled(latents, now.latents_of(self.source, latents), hole, now, self.source)
