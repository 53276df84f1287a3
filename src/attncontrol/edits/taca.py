"""Temperature of the attention from picture to text, which many more cells of the picture outweigh
in one softmax: TACA (Lv et al. 2025, arXiv 2506.07986).

    s'_ij = gamma s_ij    of cells i of the picture with positions j of the text, in the first steps

Multiplying a logit is multiplying its key, so it is the kernel once more, in parts: the cells see
gamma K_text. The official code has gamma = 1.2 for all positions of the text, padding too, in all
joint blocks and branches of FLUX and SD 3.5, and in the first 3 of 30 steps. Its further training
(LoRA) is no part of this edit.
"""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.sites import Where
from attncontrol.checks.arguments import Positive, Share
from attncontrol.edits._places import positions
from attncontrol.edits._rows import but_text


@dataclass(frozen=True)
class TACA(Edit):
    """The picture looks at the text with ``gamma`` times its logits, in the ``first`` share of the
    steps.

        with edit(pipe, TACA()):
            image = pipe("a crisp green lettuce next to a juicy red tomato").images[0]

    Recorded maps are those before the change. Raises SettingError.
    """

    gamma: Positive = 1.2
    first: Share = 0.1
    where = Where(kind="joint")

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        if self.gamma == 1 or now.step.index >= steps_in(self.first, now.step.total):
            return call
        key = call.key.clone()
        for row in range(len(key)):
            key[row, :, positions(call, now, row)[1]] *= self.gamma
        return but_text(call, call.replace(key=key), now)
