"""Keys that nobody looks at: a region of the picture, or words.

    allowed      logit -> -infinity          the key is masked, the other keys take its share
    soft         key   -> (1 - M) key        the logit becomes 0, of fractional M part of itself

Soft is what DesignEdit does to remove an object (arXiv 2403.14487): its projection of keys has no
bias, so the masked input gives the key 0. There it acts on the conditional rows of self-attention
in the first 40 of 50 steps; ``steps=(0.0, 0.8)`` says so here, where all branches are changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, coverage, require_region
from attncontrol.errors import SettingError


@dataclass(frozen=True)
class KeyMask(Edit):
    """Hides keys of the pictures ``images`` (all if None): those in ``region``, a box (left, top,
    right, bottom) in 0 .. 1 or a mask [height width] of any size, and those of ``words``.

        with edit(pipe, KeyMask((0.0, 0.0, 0.5, 1.0)), where=Where(kind="self")):

    ``soft`` zeroes the keys instead. A boolean mask hides the cells that are covered by more than
    half. Raises SettingError if there is nothing to hide, WordError.
    """

    region: Region | None = None
    words: Sequence[str] = ()
    soft: bool = False
    images: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.region is None and not self.words) or isinstance(self.words, str):
            raise SettingError(
                "KeyMask hides a region=(left, top, right, bottom) of the picture or "
                f"words=['cat'], not region={self.region} and words={self.words!r}"
            )
        if self.region is not None:
            require_region(self.region)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        hidden = torch.stack(
            [self._hidden(call, now, row) for row in range(len(call.query))]
        )  # row key
        if not hidden.any():
            return call
        if self.soft:
            return call.replace(key=call.key * (1 - hidden[:, None, :, None].to(call.key)))
        return call.masked(hidden[:, None, None] <= 0.5)

    def _hidden(self, call: AttentionCall, now: Moment, row: int) -> Tensor:
        """[key] how much of each key is hidden."""
        hidden = torch.zeros(call.key.shape[2], device=call.key.device)
        image = now.image_of_row(row)
        if self.images is not None and image not in self.images:
            return hidden
        if self.region is not None and call.site.kind != "cross":
            share = coverage(self.region, *now.layout.grid[-2:]).to(hidden).flatten()
            cells = hidden[now.layout.rows([row]).image_slice]
            cells += share.repeat(len(cells) // len(share))
        if call.site.kind != "self":
            keys = torch.arange(len(hidden), device=hidden.device)[now.layout.text]
            for word in self.words:
                hidden[keys[list(now.span(word, image).positions)]] = 1.0
        return hidden
