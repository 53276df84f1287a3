"""Mutual self-attention of MasaCtrl (Cao et al. 2023, arXiv 2304.08465): a picture takes its
contents from the source.

    Attn(Q, K_source, V_source)        every row reads keys and values of its source

Each branch has its own source, as officially. In joint attention the picture's keys and values are
the source's and the text's stay: with all of them the source's prompt would come along. The
official code acts from step 4 of 50 and layer 10 of the 16 of Stable Diffusion on, which is
``where=Where(kind="self", layers=("up_blocks.2", "up_blocks.3"))``.
"""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Share


@dataclass(frozen=True)
class MutualAttention(Edit):
    """All images read keys and values of the image ``source`` of the batch, from the share
    ``start`` of the run on.

        with edit(pipe, MutualAttention()):
            source, changed = pipe(["a frog", "a blue frog"], generator=same_seeds).images

    Raises SettingError; CouplingError if the pipeline makes no image of that number.
    """

    source: Source = 0
    start: Share = 0.08
    where = Where(kind=("self", "joint"))

    def acts(self, progress: float) -> bool:
        return progress >= self.start

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        source = now.source(call, self.source, "picture")
        return call.replace(key=source.key, value=source.value)
