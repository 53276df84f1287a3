"""A text for every region of the picture ("attention couple"; for joint attention the masks of
Chen et al. 2024, arXiv 2411.02395).

    w_r   = c_r / max(1, sum_s c_s)       c_r: how much of a cell region r covers
    out   = (1 - (1 - base) sum_r w_r) A_prompt V_prompt + (1 - base) sum_r w_r A_r V_r

A_r = softmax over the keys of text r alone, in cross-attention; cells in no region see the prompt.
In joint attention a cell that regions cover by half sees their texts and the whole picture in one
softmax, which takes the place of the sum; the prompt, as without regions, has the share ``base``;
text r sees itself and its cells. Rows of the negative prompt see that, and ``negatives`` alike.
The official code mixes with a pass of the prompt (0.1 to 0.3, 10 steps, some blocks) and shows a
cell no cells of other regions: ``separate=True``, which may leave pictures without connection.
"""

from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.sites import TEXT
from attncontrol.checks.arguments import Index, Share
from attncontrol.edits._joined import joined
from attncontrol.edits._regions import Group, Regional, mixed, pairs_of
from attncontrol.edits.merge import is_chosen
from attncontrol.errors import SettingError


@dataclass(frozen=True)
class Regions(Edit):
    """Gives regions texts of their own, in the pictures ``images`` (all if None).

        with edit(pipe, Regions({"a red cat": (0.0, 0.2, 0.5, 1.0)})):
            image = pipe("a cat and a frog on grass").images[0]

    A region is a box (left, top, right, bottom) in 0 .. 1, or a mask [height width] of any size;
    several with the same text are a list of pairs (text, region). ``base`` is the share of the
    prompt inside them, ``until`` the share of the steps. ``negatives`` are regions of the negative
    prompt. Recorded maps are those of the prompt alone. Raises SettingError; CouplingError if the
    pipeline makes no image of a number; ModelError if it cannot read further texts.
    """

    regions: Regional
    base: Share = 0.2
    negatives: Regional = ()
    images: tuple[Index, ...] | None = None
    until: Share = 1.0
    separate: bool = False
    where = TEXT

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.regions:
            raise SettingError("regions map texts to boxes: {'a red cat': (0, 0, 0.5, 1)}")
        texts = [text for of in (self.regions, self.negatives) for text, _ in pairs_of(of)]
        object.__setattr__(self, "texts", tuple(dict.fromkeys(texts)))

    def acts(self, progress: float) -> bool:
        return progress <= self.until

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        groups = [group for group in self._groups(call, now) if group.rows and group.regions]
        if not groups or now.step.index >= steps_in(self.until, now.step.total):
            return call
        if call.site.kind == "cross":
            return mixed(call, groups, now.layout.grid, self.base)
        return joined(call, groups, now.layout, self.base, self.separate)

    def _groups(self, call: AttentionCall, now: Moment) -> list[Group]:
        """Rows that have the same regions."""
        chosen = [i for i in range(len(call.query)) if is_chosen(self.images, i, now)]
        rows = range(len(call.query))
        negative = {*rows[now.rows("uncond")], *rows[now.rows("reference")]}
        return [
            Group(pairs_of(self.regions), [row for row in chosen if row not in negative]),
            Group(pairs_of(self.negatives), [row for row in chosen if row in negative]),
        ]
