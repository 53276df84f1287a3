"""Cells look at regions of the source: all-to-key attention of StyA2K (Zhu et al. 2023, arXiv
2212.04105).

    distributed   K^_r = sum_y w_y K_y + K-_r, over the sum of weights; V^_r with the same w
                  w_y = sigma(beta + alpha <K-_r, K_y>)        for cells y of region r, means K-, V-
    progressive   region r(x) = argmax_z sum_{c,y} Q_xcy K_zcy,        then softmax in that region

Regions are blocks of ``size`` x ``size`` cells; y are places in them, heads match by themselves.
The paper's is a trained module between a VGG encoder and its decoder: Q and K of features without
mean and scale, no 1 / sqrt(d), blocks of 8, in the coarsest layer 4, alpha 1.27 and beta 0.02 where
training began at 1 and 0, both forms added through convolutions. Nothing is trained here: queries,
keys and scale are the model's, a form is taken alone, and pooled keys and values are divided by the
sum of weights (officially by r + 1, which convolutions make up for). Which keys a cell may see is
what carries over. In joint attention they stand beside those of the text.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.extended import extended
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Where
from attncontrol.attention.source import KEYS, Taken
from attncontrol.checks.arguments import Count
from attncontrol.edits._blocks import matched, pooled
from attncontrol.edits._rows import but_source, picture_queries


@dataclass(frozen=True)
class AllToKey(Edit):
    """All images look at regions of the image ``source`` of the batch instead of their own cells.

        with edit(pipe, AllToKey(size=4), where=Where(kind="self", layers=("up_blocks.1",))):
            style, picture = pipe(["a tower, flat cartoon", "a train"]).images

    Queries of the text stay. A progressive form has a mask of all queries, keys and heads. Raises
    SettingError; CouplingError if the pipeline makes no image of that number.
    """

    mode: Literal["distributed", "progressive"] = "distributed"
    source: Source = 0
    size: Count = 8
    alpha: float = 1.0
    beta: float = 0.0
    where = Where(kind=("self", "joint"))

    def takes(self, call: AttentionCall, now: Moment) -> Taken:  # noqa: ARG002
        return KEYS

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        there = now.source(call, self.source, *self.takes(call, now))
        form = self._pooled if self.mode == "distributed" else self._matched
        output = but_source(call, form(there, now), now, self.source)
        if call.site.kind == "self":
            return output
        return torch.where(picture_queries(call, now), output, call.run())

    def _pooled(self, call: AttentionCall, now: Moment) -> AttentionCall:
        cells, count = now.layout.image_slice, call.key.shape[2]
        kept = torch.ones(count, dtype=torch.bool, device=call.key.device)
        kept[cells] = False
        mask = call.mask if call.mask is None else call.mask[..., kept]
        others = call.replace(key=call.key[:, :, kept], value=call.value[:, :, kept], mask=mask)
        of_cells = call.key[:, :, cells], call.value[:, :, cells]
        weights = self.alpha, self.beta
        return extended(others, *pooled(*of_cells, now.layout.grid, self.size, *weights))

    def _matched(self, call: AttentionCall, now: Moment) -> AttentionCall:
        cells = now.layout.image_slice
        shape = *call.query.shape[:3], call.key.shape[2]
        allowed = torch.ones(shape, dtype=torch.bool, device=call.key.device)
        of_cells = call.query[:, :, cells], call.key[:, :, cells]
        allowed[:, :, cells, cells] = matched(*of_cells, now.layout.grid, self.size)
        return call.masked(allowed)
