"""Which heads of which sites an edit acts on, for which images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Editor, Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Head, Site, Where
from attncontrol.checks.arguments import Unchecked, check_fields, takes
from attncontrol.edits.skip_layers import SkipLayers
from attncontrol.errors import EditError, SiteError

Heads = Sequence[Head]


@dataclass(frozen=True)
class PerImage:
    """Heads of its own for every image of the batch."""

    heads: tuple[Heads, ...]

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class On:
    """An edit with its place: ``heads`` [(site, head), ...], all those of ``where`` if None.

    ``where`` None is where the edit says that it belongs.
    """

    edit: Annotated[Editor | SkipLayers, Unchecked]
    where: Where | None = None
    heads: Heads | PerImage | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class _Function(Edit):
    """A plain function as an edit."""

    function: Editor

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        return self.function(call, now)

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))


def listed(edit: Any, where: Where | None, heads: Heads | PerImage | None) -> Sequence[On]:
    """Edits with their places: one with ``where`` and ``heads``, or a list of ``On``. Raises
    EditError."""
    require_edits(edit)
    if not isinstance(edit, Sequence):
        return [On(edit, where, heads)]
    if where or heads is not None or not all(isinstance(one, On) for one in edit):
        raise EditError(
            f"several edits are a list of On(edit, where=..., heads=...), each with its own place, "
            f"not {edit!r} with where={where} and heads={heads}"
        )
    return edit


def require_edits(edit: Any) -> None:
    """Raises EditError for a name and for an empty list."""
    if isinstance(edit, str):
        raise EditError(
            f"{edit!r} is a string, no edit: write an object of attncontrol.edits, such as "
            "Replace(), or a function (call, now); names of methods are for the command line"
        )
    if isinstance(edit, Sequence) and not edit:
        raise EditError(
            f"{edit!r} holds no edit: write an object of attncontrol.edits, such as Replace(), or "
            "a list of On(edit, where=..., heads=...)"
        )


def as_edit(given: Any) -> Edit:
    """An edit, or a plain function (call, now) -> call or output. Raises EditError."""
    if isinstance(given, Edit) and takes(given, 2):
        return given
    if isinstance(given, SkipLayers):
        raise EditError(
            "SkipLayers leaves whole blocks out of a weakened pass: use it with perturb"
        )
    if isinstance(given, type) or not takes(given, 2):
        hint = f": write {given.__name__}(...)" if isinstance(given, type) else ""
        raise EditError(
            f"{given!r} is no edit{hint}; an edit is an object of attncontrol.edits, or a function "
            "(call, now) that returns the changed call or its output"
        )
    return _Function(given)


def chosen_heads(own: Where | None, on: On, known: Mapping[str, Site]) -> dict[str, Tensor]:
    """By site which heads are changed, [image head], or [1 head] if the same ones in all images;
    ``own`` is where the edit belongs."""
    where = own if on.where is None and on.heads is None else on.where
    if on.heads is None and where is None:
        raise SiteError(
            "say which attention to change: where=Where(kind='self', layers=('mid_block',)) or "
            "heads=[(site, head), ...]"
        )
    allowed = known if where is None else {s.name: s for s in where.select(known.values())}
    if on.heads is None:
        return {name: torch.ones(1, s.heads, dtype=torch.bool) for name, s in allowed.items()}
    images = on.heads.heads if isinstance(on.heads, PerImage) else (on.heads,)
    if not isinstance(on.heads, PerImage) and not on.heads:
        raise SiteError(
            f"heads={on.heads} names none: leave heads out for all of those of where=..., or name "
            "some, [(site, head), ...]"
        )
    chosen: dict[str, Tensor] = {}
    for image, heads in enumerate(images):
        for name, head in heads:
            require_head((name, head), allowed)
            none = torch.zeros(len(images), allowed[name].heads, dtype=torch.bool)
            chosen.setdefault(name, none)[image, head] = True
    return chosen


def require_head(place: Head, allowed: Mapping[str, Site]) -> None:
    """Raises SiteError if there is no such head."""
    name, head = place
    if name not in allowed:
        raise SiteError(f"there is no head {head} at {name!r}; sites are: {', '.join(allowed)}")
    if not 0 <= head < allowed[name].heads:
        has = f"it has {allowed[name].heads} heads"
        raise SiteError(f"there is no head {head} at {name!r}; {has}")
