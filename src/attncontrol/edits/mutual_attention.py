"""Mutual self-attention of MasaCtrl (Cao et al. 2023, arXiv 2304.08465): a picture takes its
contents from the source.

    Attn(Q, K_source, V_source)              every row reads keys and values of its source
    Attn(Q, [K_source; K], [V_source; V])    with ``union``
    M Attn(Q, K_f, V_f) + (1 - M) Attn(Q, K_b, V_b)      with masks: M of the picture, f and b are
                                             the cells inside and outside of the source's

Each branch has its own source. In joint attention the text's keys and values stay. Masks are given
or found: where the mean map of words, over heads and the layers of the step so far, is above a
``threshold`` between its least and its largest value. Officially those of 16 x 16 cells,
``maps=Where(stride=4)``, from step 4 of 50 and ``layers=("up_blocks.2", "up_blocks.3")`` on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.extended import extended
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region
from attncontrol.attention.sites import ALL, TEXT, Where
from attncontrol.attention.source import KEYS, MAPS, Taken
from attncontrol.checks.arguments import Share
from attncontrol.edits._rows import but_source
from attncontrol.edits._sides import look_for, require_one, same_side, sides_of


@dataclass(frozen=True)
class MutualAttention(Edit):
    """All images read keys and values of the image ``source`` of the batch, in ``layers`` (all if
    none are named), from the share ``start`` of the run on.

        with edit(pipe, MutualAttention()):
            source, changed = pipe(["a frog", "a blue frog"], generator=same_seeds).images

    ``masks`` are boxes or masks of the source and of the others; ``words`` find them. Then, and
    with ``union``, maps are recorded before it. Raises SettingError, WordError, CouplingError.
    """

    source: Source = 0
    start: Share = 0.08
    union: bool = False
    masks: tuple[Region, Region] | None = None
    words: Sequence[str] = ()
    threshold: Share = 0.1
    maps: Where | None = None
    layers: tuple[str, ...] = ()
    either_words = ("words",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one(self.union, self.masks, self.words)
        own = Where(("self", "joint"), layers=self.layers)
        object.__setattr__(self, "where", Where(ALL) if self.words else own)

    def acts(self, progress: float) -> bool:
        return progress >= self.start

    def takes(self, call: AttentionCall, now: Moment) -> Taken:  # noqa: ARG002
        looks = self.words and TEXT.matches(call.site) and (self.maps or TEXT).matches(call.site)
        shares = call.site.kind != "cross" and Where(layers=self.layers).matches(call.site)
        return Taken(names=(*KEYS.names * shares, *MAPS.names * bool(looks)))

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        names = self.takes(call, now).names
        if "maps" in names:
            look_for(now.notes(self), call, now, self.source, self.words)
        if "key" not in names:
            return call
        there = now.source(call, self.source, *KEYS)
        if self.union:
            cells = now.layout.image_slice
            changed = extended(call, there.key[:, :, cells], there.value[:, :, cells])
            return but_source(call, changed, now, self.source)
        sides = sides_of(now.notes(self), call, now, self.threshold, self.masks)
        if not sides:
            return there
        return but_source(call, there.masked(same_side(call, now, sides)), now, self.source)
