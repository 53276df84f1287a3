"""What every position of joint attention sees where regions of the picture have texts."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.edits._regions import Group


@dataclass(frozen=True, eq=False)
class View:
    """``members`` are the tokens of every text and the cells that see it [position], ``inside`` the
    cells that see any, ``own`` the tokens of all texts."""

    group: Group
    layout: Layout
    members: Mapping[str, Tensor]
    inside: Tensor
    own: Tensor
    separate: bool

    def seen(self, queries: slice) -> Tensor:
        """Which keys they see [query key]."""
        of = range(len(self.inside))[queries]
        seen = self.inside.new_ones(len(of), len(self.inside))
        seen[:, self.layout.text] = ~self.inside[queries, None]
        if self.separate:
            seen &= self._joins(queries)
        for text, own in self.members.items():
            seen[:, self.layout.further[text]] = own[queries, None]
        for text, own in self.members.items():
            tokens = range(len(self.inside))[self.layout.further[text]]
            seen[[token - of.start for token in tokens if token in of]] = own
        return seen

    def _joins(self, queries: slice) -> Tensor:
        """Which pairs are in a region together, or both in none, or not both cells."""
        cells = torch.zeros_like(self.inside)
        cells[self.layout.image_slice] = True
        of = torch.stack([*self.members.values(), cells & ~self.inside]).float()
        return (of[:, queries].T @ of > 0) | ~(cells[queries, None] & cells)

    def masked(self, call: AttentionCall, queries: slice) -> AttentionCall:
        """The rows and some queries of a call, with the mask of these."""
        part = call.rows(self.group.at).of_queries(queries)
        opened = part.replace(mask=_opened(part.mask, self.own))
        return opened.masked(self.seen(queries)[None, None])


def _opened(mask: Tensor | None, keys: Tensor) -> Tensor | None:
    """A mask that hides none of these."""
    if mask is None or mask.dtype == torch.bool:
        return None if mask is None else mask | keys
    return mask.masked_fill(keys, 0)


def view_of(group: Group, call: AttentionCall, layout: Layout, separate: bool) -> View:
    """A cell is in a region that covers half of it; that of a tiny one is the best covered."""
    count, at = call.query.shape[2], layout.image_slice
    covered = group.covered(layout.grid, call.query, len(range(count)[at]))
    none = torch.zeros(count, dtype=torch.bool, device=call.query.device)
    inside, own, members = none.clone(), none.clone(), {}
    for text, shares in covered.items():
        cells, tokens = none.clone(), none.clone()
        cells[at] = (shares >= shares.amax(1, keepdim=True).clamp(max=0.5)).any(0)
        tokens[layout.further[text]] = True
        members[text], inside, own = cells | tokens, inside | cells, own | tokens
    return View(group, layout, members, inside, own, separate)
