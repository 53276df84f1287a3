"""What methods of editing are, by the names of ``edit_names``: for ``attncontrol edit --method``
and the bench."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from attncontrol.attention.source import SourcePass
from attncontrol.batch.edit_names import USUAL, editing
from attncontrol.edits.local_blend import LocalBlend
from attncontrol.edits.mutual_attention import MutualAttention
from attncontrol.edits.plug_and_play import PRESETS, PlugAndPlay
from attncontrol.edits.replace import Replace
from attncontrol.edits.share import Share
from attncontrol.edits.style_aligned import StyleAligned
from attncontrol.errors import SettingError
from attncontrol.verbs.places import On

Sources = int | tuple[int, ...] | SourcePass
"""The number of the image that is the source, for every image of a batch that of its own, or a pass
that was kept."""
_LEVELS_OF_SDXL = 3  # SD 1 and 2 have 4
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


def _pnp(source: Sources, share: float) -> list[On]:
    return [On(PlugAndPlay(source=source, attention=share * 5 / 8, residual=share))]


_MAKES: Mapping[str, Make] = {
    "p2p": _p2p,
    "replace": _replace,
    "blend": _blend,
    "masactrl": _masactrl,
    "style": _style,
    "layout": _layout,
    "contents": _contents,
    "pnp": _pnp,
}
METHODS: Mapping[str, tuple[Make, float]] = MappingProxyType(
    {name: (_MAKES[name], usual) for name, usual in USUAL.items()}
)
"""With their usual strengths. p2p is prompt-to-prompt with LocalBlend, replace without; layout
shares queries and keys, contents keys and values; pnp is Plug-and-Play, for UNets alone."""


def edits_of(name: str, source: Sources, pipe: Any = None) -> list[On]:
    """The edits of a name in their order, ``auto`` not among them, with the layers that fit a
    pipeline if one is given. Raises SettingError."""
    made: list[On] = []
    for part, strength in editing(name)[0]:
        make, usual = METHODS[part]
        made += make(source, usual if strength is None else strength)
    return made if pipe is None else [replace(on, edit=_fitted(on.edit, pipe)) for on in made]


def _fitted(edit: Any, pipe: Any) -> Any:
    """Plug-and-Play has layers of its own for every UNet."""
    if not isinstance(edit, PlugAndPlay):
        return edit
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise SettingError(
            f"pnp takes residual features, which UNets alone have: {type(pipe).__name__} has none; "
            "layout takes the layout of the source in every model"
        )
    levels = len(unet.config.block_out_channels)
    return replace(edit, **PRESETS["sdxl" if levels == _LEVELS_OF_SDXL else "sd"])
