"""Prompt-to-prompt (Hertz et al. 2022, arXiv 2208.01626): the layout of the source.

    A'_j = a_j sum_i A_source,i M_ij + (1 - a_j) A_j      cross-attention, first ``cross`` T steps
    A'   = A_source              self-attention of at most ``cells`` queries, first ``among`` T
    Q, K of the picture = those of the source             joint attention, first ``joint`` T

M gives a word that both prompts have the column of its own, and each of the n tokens of a word that
takes the place of another 1/n of the sum of that one's; a_j = 0 for words that are new. That is the
official AttentionReplace, and AttentionRefine with ``swapped=False``: a = 0 for swapped words too.
With V of the target A' V is the kernel with Q, K of the source and M a V, plus that with those of
the target and (1 - a) V. Only conditional rows change, as officially; 0.8 and 0.4 are of the
official notebook, which replaces self-attention up to 16 x 16 (32 x 32 in its version for real
pictures, followed here). Officially M is off after a word of another token count, and refinement
aligns tokens instead of words. Joint attention: Shin et al. 2025 (arXiv 2508.07519).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.sites import Where
from attncontrol.attention.source import Taken
from attncontrol.checks.arguments import Index, Share
from attncontrol.edits._source import of_layout, with_source_text
from attncontrol.prompts.alignment import Alignment


@dataclass(frozen=True)
class Replace(Edit):
    """Every image looks where the image ``source`` of the batch looks.

        with edit(pipe, Replace()):
            cat, dog = pipe(["a cat and a car", "a dog and a car"], generator=same_seeds).images

    ``words`` gives words of the prompts shares of the run of their own instead of ``cross``:
    {"dog": 0.4}. Recorded maps are A' where all of it is the source's and M = 1, else A. Raises
    SettingError, WordError; CouplingError if the pipeline makes no image of that number.
    """

    source: Source = 0
    cross: Share = 0.8
    among: Share = 0.4
    joint: Share = 0.2
    cells: Index = 32 * 32
    swapped: bool = True
    words: Mapping[str, Share] = field(default_factory=dict)
    where = Where(kind=("self", "cross", "joint"))
    own_words = ("words",)

    def acts(self, progress: float) -> bool:
        return progress <= max(self.cross, self.among, self.joint, *self.words.values())

    def takes(self, call: AttentionCall, now: Moment) -> Taken | None:
        if call.site.kind != "cross":
            return of_layout(call, now, self.among, self.joint, self.cells)
        last = max(steps_in(s, now.step.total) for s in (self.cross, *self.words.values()))
        return Taken("all", ("query", "key"), ("cond",)) if now.step.index < last else None

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        taken = self.takes(call, now)
        if taken is None:
            return call
        if call.site.kind != "cross":
            return now.source(call, self.source, *taken)
        return with_source_text(call, now, self.source, taken, self._shares)

    def _shares(self, alignment: Alignment, now: Moment, image: int) -> Tensor:
        """a_j."""
        taken = alignment.kept | alignment.swapped if self.swapped else alignment.kept
        until = torch.full(taken.shape, steps_in(self.cross, now.step.total))
        for word, share in self.words.items():
            until[list(now.span(word, image).positions)] = steps_in(share, now.step.total)
        return taken & (now.step.index < until)
