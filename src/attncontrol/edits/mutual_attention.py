"""Mutual self-attention of MasaCtrl (Cao et al. 2023, arXiv 2304.08465): a picture takes its
contents from the source.

    Attn(Q, K_source, V_source)              every row reads keys and values of its source
    Attn(Q, [K_source; K], [V_source; V])    with ``union``
    M Attn(Q, K_f, V_f) + (1 - M) Attn(Q, K_b, V_b)      with masks: M of the picture, f and b are
                                             the cells inside and outside of the source's

Each branch has its own source. In joint attention the text's keys and values stay: the source's
prompt would come along. Masks are given or found: where the mean map of words, over heads and the
layers of the step so far, is above a ``threshold`` between its least and its largest value.
Officially those of 16 x 16 cells, ``maps=Where(stride=4)``, and from step 4 of 50 and layer 10 of
16 on: ``layers=("up_blocks.2", "up_blocks.3")``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.extended import extended
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, require_region
from attncontrol.attention.sites import ALL, TEXT, Where
from attncontrol.attention.source import Taken
from attncontrol.checks.arguments import Share
from attncontrol.edits._places import inside
from attncontrol.edits._rows import but_source
from attncontrol.edits._sides import look_for, same_side, sides_of
from attncontrol.errors import SettingError


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(map(bool, (self.union, self.masks, self.words))) > 1:
            raise SettingError("choose one of union=True, masks=(...) and words=[...]")
        for mask in self.masks or ():
            require_region(mask)
        own = Where(("self", "joint"), layers=self.layers)
        object.__setattr__(self, "where", Where(ALL) if self.words else own)

    def acts(self, progress: float) -> bool:
        return progress >= self.start

    def takes(self, call: AttentionCall, now: Moment) -> Taken:  # noqa: ARG002
        shared = ("key", "value") if self._shares(call) else ()
        return Taken(names=(*shared, "maps") if self._looks(call) else shared)

    def _shares(self, call: AttentionCall) -> bool:
        return call.site.kind != "cross" and Where(layers=self.layers).matches(call.site)

    def _looks(self, call: AttentionCall) -> bool:
        return bool(self.words) and all(w.matches(call.site) for w in (TEXT, self.maps or TEXT))

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        if self._looks(call):
            look_for(now.notes(self), call, now, self.source, self.words)
        if not self._shares(call):
            return call
        there = now.source(call, self.source, "picture", ("key", "value"))
        cells = now.layout.image_slice
        if self.union:
            changed = extended(call, there.key[:, :, cells], there.value[:, :, cells])
            return but_source(call, changed, now, self.source)
        sides = sides_of(now.notes(self), call, now, self.threshold)
        if self.masks:
            sides = dict.fromkeys(now.images, inside(self.masks, now.layout, call.key.device))
        if not sides:
            return there
        return but_source(call, there.masked(same_side(call, now, sides)), now, self.source)
