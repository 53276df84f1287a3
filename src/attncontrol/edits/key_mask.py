"""Keys that nobody looks at: a region of the picture, or words.

    allowed      logit -> -infinity          the key is masked, the other keys take its share
    soft         key   -> (1 - M) key        the logit becomes 0, of fractional M part of itself

Soft is what DesignEdit does to remove an object (arXiv 2403.14487): its projection of keys has no
bias, so masked input gives the key 0; it acts on conditional rows of self-attention in 40 of 50
steps. Here a region is hidden in all branches, words in the conditional one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, coverage, require_region
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Index
from attncontrol.edits.merge import is_chosen, keys_of
from attncontrol.errors import SettingError
from attncontrol.prompts.words import Word


@dataclass(frozen=True)
class KeyMask(Edit):
    """Hides keys of the pictures ``images`` (all if None): those in ``region``, a box (left, top,
    right, bottom) in 0 .. 1 or a mask [height width] of any size, and those of ``words``.

        with edit(pipe, KeyMask((0.0, 0.0, 0.5, 1.0))):
            image = pipe(prompt).images[0]

    ``soft`` zeroes the keys instead. A boolean mask hides cells covered by more than half. Raises
    SettingError if nothing is hidden or left; SiteError without such keys; WordError, CouplingError
    """

    region: Region | None = None
    words: Sequence[Word] = ()
    soft: bool = False
    images: tuple[Index, ...] | None = None
    own_words = ("words",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region is None and not self.words:
            raise SettingError("hide a region=(left, top, right, bottom), or words=['cat']")
        if self.region is not None:
            require_region(self.region)
        seen = ("cross",) if self.region is None else ("self", "cross") if self.words else ("self",)
        object.__setattr__(self, "where", Where(kind=(*seen, "joint")))

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        assert isinstance(self.where, Where)  # set above
        self.where.select([call.site])
        hidden = torch.stack([self._hidden(call, now, row) for row in range(len(call.query))])
        if not hidden.any():
            return call
        if self.soft:
            return call.replace(key=call.key * (1 - hidden[:, None, :, None].to(call.key)))
        if (hidden > 0.5).all(1).any():
            raise SettingError(f"{self} leaves none of {hidden.shape[1]} keys at {call.site.name}")
        return call.masked(hidden[:, None, None] <= 0.5)

    def _hidden(self, call: AttentionCall, now: Moment, row: int) -> Tensor:
        """[key] how much of each key is hidden."""
        dtype = torch.promote_types(call.key.dtype, torch.float32)
        hidden = call.key.new_zeros(call.key.shape[2], dtype=dtype)
        if not is_chosen(self.images, row, now):
            return hidden
        if self.region is not None and call.site.kind != "cross":
            share = coverage(self.region, *now.layout.grid[-2:]).to(hidden).flatten()
            cells = hidden[now.layout.rows([row]).image_slice]
            cells += share.repeat(len(cells) // len(share))
        if call.site.kind != "self" and row in range(len(call.query))[now.rows("cond")]:
            for word in self.words:
                hidden[keys_of(word, row, call, now)] = 1.0
        return hidden
