"""Queries, keys or values of the source's picture in place of one's own, in some layers and steps:
what many editing methods for transformers have in common.

    X' = X_source for X in ``what``, at the cells of the picture; the text stays

``Share.preset("stable-flow")`` is Avrahami et al. 2024 (arXiv 2411.14430); see ``_presets.py``.
"""

from dataclasses import dataclass
from typing import Literal

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Result, Source
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, coverage, require_region
from attncontrol.attention.sites import Where
from attncontrol.attention.source import Taken
from attncontrol.checks import arguments
from attncontrol.edits._presets import OUTSIDE, SHARES, made_for
from attncontrol.errors import SettingError


@dataclass(frozen=True)
class Share(Edit):
    """All images take ``what`` from the image ``source`` of the batch, in ``layers`` (all if none
    are named), from the share ``start`` of the run to the share ``stop``.

        with edit(pipe, Share(("value",))):
            source, changed = pipe(["a dog", "a dog with a hat"], generator=same_seeds).images

    ``outside`` is a box or a mask: what lies in it stays the image's own. Raises SettingError;
    CouplingError if the pipeline makes no image of that number.
    """

    what: tuple[Literal["query", "key", "value"], ...] = ("key", "value")
    source: Source = 0
    start: arguments.Share = 0.0
    stop: arguments.Share = 1.0
    outside: Region | None = None
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.what:
            raise SettingError(f"what is some of 'query', 'key' and 'value', not {self.what!r}")
        if self.start > self.stop:
            raise SettingError(f"start={self.start} lies after stop={self.stop}")
        if self.outside is not None:
            require_region(self.outside, "outside")
        object.__setattr__(self, "made_for", made_for(self.layers))
        object.__setattr__(self, "where", Where(kind=("self", "joint"), layers=self.layers))

    @classmethod
    @arguments.checked
    def preset(cls, name: str, outside: Region | None = None) -> "Share":
        """Raises SettingError, also where a method needs a region and has none."""
        if name not in SHARES:
            raise SettingError(f"{name!r} is no preset; there are {', '.join(SHARES)}")
        if name in OUTSIDE and outside is None:
            raise SettingError(f"{name} shares what is outside=(left, top, right, bottom)")
        return cls(**SHARES[name], outside=outside)

    def acts(self, progress: float) -> bool:
        return self.start <= progress <= self.stop

    def takes(self, call: AttentionCall, now: Moment) -> Taken:  # noqa: ARG002
        return Taken(names=self.what)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        there = now.source(call, self.source, *self.takes(call, now))
        if self.outside is None:
            return there
        cells, share = now.layout.image_slice, coverage(self.outside, *now.layout.grid[-2:])
        inside, taken = share.flatten().to(call.key.device) > 0.5, {}
        for name in self.what:
            own, result = getattr(call, name), getattr(there, name).clone()
            stays = inside.repeat(len(range(own.shape[2])[cells]) // len(inside))
            result[:, :, cells][:, :, stays] = own[:, :, cells][:, :, stays]
            taken[name] = result
        return call.replace(**taken)
