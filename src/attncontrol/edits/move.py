"""Objects in another place, size or direction: layers of latents of DesignEdit (Jia et al. 2024,
arXiv 2403.14487), pasted over a picture from which they were removed.

    removal as in ``Remove``; after step 82 % T:     z = z + P (T z_source - z)

T moves, scales and flips cells, P is where those of the region come to lie. Without a region T is
of the whole picture, panned and zoomed: z = T z_source + M (z - T z_source), M what comes free. The
official code moves latents, and scales, flips, pans and zooms photos before their inversion; here
the nearest cells of latents are taken. Its M is 15 of 1024 pixels larger for a pan or zoom.
"""

from dataclasses import dataclass

from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.regions import Region, require_region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Positive, Share
from attncontrol.edits._hole import filled, hidden, taken_along
from attncontrol.edits._shift import Shift
from attncontrol.errors import SettingError


@dataclass(frozen=True)
class Move(Edit):
    """Every image is the image ``source`` of the batch with what is in ``region``, a box (left,
    top, right, bottom) in 0 .. 1 or a mask [height width], elsewhere; the whole of it if None.

        with edit(pipe, Move((0.0, 0.2, 0.5, 0.9), by=(0.4, 0.0))):
            source, moved = pipe(2 * ["a cat"], generator=same_seeds).images

    ``by`` is to the right and down, in widths and heights of the picture; ``scale`` and ``flip``
    (left and right change places) are around the centre; the rest is as for ``Remove``. Raises
    SettingError; CouplingError if the pipeline makes no image of that number.
    """

    region: Region | None = None
    by: tuple[float, float] = (0.0, 0.0)
    scale: Positive = 1.0
    flip: bool = False
    source: Source = 0
    masked: Share = 0.8
    kept: Share = 0.82
    grow: Share = 0.01
    where = Where(kind=("self", "joint"))
    blends = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region is not None:
            require_region(self.region)
        if self._shift == Shift(self.region, (0.0, 0.0), 1.0, False):
            raise SettingError("say what changes: by=(0.3, 0.0), scale=1.5 or flip=True")
        if not self._shift.places(64, 64)[1].any():
            raise SettingError(f"the shift by={self.by} leaves nothing of it in the picture")

    @property
    def _shift(self) -> Shift:
        return Shift(self.region, (self.by[0], self.by[1]), self.scale, self.flip)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        if now.step.index >= steps_in(self.masked, now.step.total):
            return call
        share = self._shift.free(self.grow, *now.layout.grid[-2:])
        return hidden(call, now, self.source, share, soft=True)

    def stepped(self, latents: Tensor, now: Moment) -> Tensor:
        (height, width), last = now.layout.grid[-2:], steps_in(self.kept, now.step.total)
        cells, place = self._shift.places(height, width)
        moved = taken_along(around := now.latents_of(self.source, latents), cells)
        if now.step.index < last:
            hole = self._shift.hole(self.grow, height, width)
            around, hole = (moved, hole | ~place) if self.region is None else (around, hole)
            latents = filled(latents, around, hole, now, self.source)
        if self.region is not None and now.step.index == min(last, now.step.total - 1):
            latents = filled(latents, moved, ~place, now, self.source)
        return latents
