"""Names of editing methods: what ``attncontrol edit --method`` and the bench mean by them."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from attncontrol.edits.local_blend import LocalBlend
from attncontrol.edits.mutual_attention import MutualAttention
from attncontrol.edits.replace import Replace
from attncontrol.edits.share import Share
from attncontrol.edits.style_aligned import StyleAligned
from attncontrol.errors import SettingError
from attncontrol.verbs.places import On

Sources = int | tuple[int, ...]
"""The number of the image that is the source, or for every image of a batch that of its own."""
Make = Callable[[Sources, float], Sequence[On]]


def _replace(source: Sources, share: float) -> list[On]:
    what = Replace(source=source, cross=share, among=share / 2, joint=share / 4)
    return [On(what)]


def _p2p(source: Sources, share: float) -> list[On]:
    return [On(LocalBlend(source=source)), *_replace(source, share)]


def _blend(source: Sources, start: float) -> list[On]:
    return [On(LocalBlend(source=source, start=start))]


def _masactrl(source: Sources, start: float) -> list[On]:
    return [On(MutualAttention(source=source, start=start))]


def _style(source: Sources, scale: float) -> list[On]:
    return [On(StyleAligned(source=source, scale=scale))]


def _layout(source: Sources, stop: float) -> list[On]:
    return [On(Share(("query", "key"), source=source, stop=stop))]


def _contents(source: Sources, stop: float) -> list[On]:
    return [On(Share(("key", "value"), source=source, stop=stop))]


METHODS: Mapping[str, tuple[Make, float]] = MappingProxyType(
    {
        "p2p": (_p2p, 0.8),
        "replace": (_replace, 0.8),
        "blend": (_blend, 0.2),
        "masactrl": (_masactrl, 0.08),
        "style": (_style, 1.0),
        "layout": (_layout, 0.3),
        "contents": (_contents, 0.3),
    }
)
"""Those that take attention from a source, with the strength that they have unless told: the share
of the run in which they act, for masactrl and blend that from which on, for style the scale of the
source's keys. p2p is prompt-to-prompt with LocalBlend, replace without; layout shares queries and
keys, contents keys and values."""


def edits_of(name: str, source: Sources) -> list[On]:
    """The edits of a method with its strength, "p2p" or "p2p@0.5", or of several, "layout+blend",
    in their order. Raises SettingError."""
    made: list[On] = []
    for part in name.split("+"):
        method, _, strength = part.partition("@")
        if method not in METHODS:
            raise SettingError(f"there is no editing method {method!r}: {', '.join(METHODS)}")
        make, usual = METHODS[method]
        try:
            made += make(source, float(strength) if strength else usual)
        except ValueError as error:
            raise SettingError(f"{part!r}: a strength is a number, such as {method}@0.5") from error
    return made
