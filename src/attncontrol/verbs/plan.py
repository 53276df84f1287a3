"""Edits with their places: which heads of which sites, in which steps, for which images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Edit, Editor, Result
from attncontrol.attention.heads import with_heads
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Head, Site, Where
from attncontrol.checks.arguments import Unchecked, check_fields
from attncontrol.edits.skip_layers import SkipLayers
from attncontrol.errors import CouplingError, EditError, SiteError

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


@dataclass(frozen=True, eq=False)
class _Placed:
    """``heads`` [image head] by site, or [1 head] if the same ones are edited in all images."""

    edit: Edit
    heads: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Plan:
    """Edits of attention at ``sites``, for the share ``steps`` of a run; in their order, each sees
    what those before it made of a call."""

    placed: tuple[_Placed, ...]
    sites: Mapping[str, Site]
    steps: tuple[float, float]

    def __repr__(self) -> str:
        return ", ".join(str(one.edit) for one in self.placed)

    @classmethod
    def of(
        cls, placed: Sequence[On], known: Mapping[str, Site], steps: tuple[float, float]
    ) -> "Plan":
        """Raises SiteError and EditError for what has no place."""
        edits = []
        for on in placed:
            edit = as_edit(on.edit)
            edits.append(_Placed(edit, _chosen(edit, on, known)))
        names = {name for one in edits for name in one.heads}
        sites = {name: site for name, site in known.items() if name in names}
        return cls(tuple(edits), sites, (float(steps[0]), float(steps[1])))

    @property
    def sources(self) -> tuple[int, ...]:
        """The images from which attention is taken."""
        return tuple({e.edit.source: None for e in self.placed if e.edit.source is not None})

    def acts(self, progress: float) -> bool:
        """Whether anything is changed at this share of the run."""
        inside = self.steps[0] <= progress <= self.steps[1]
        return inside and any(one.heads and one.edit.acts(progress) for one in self.placed)

    def __call__(self, call: AttentionCall, now: Moment) -> Result:
        if not self.acts(now.progress):
            return call
        here = [one for one in self.placed if call.site.name in one.heads]
        here = [one for one in here if one.edit.acts(now.progress)]
        if len(here) == 1 and here[0].heads[call.site.name].all():
            return here[0].edit(call, now)
        outputs: list[tuple[_Placed, Tensor, Tensor]] = []
        for one in here:
            chosen = _of_rows(one.heads[call.site.name], now).to(call.query.device)
            _require_calls(outputs, chosen, one, call)
            result = _on_heads(one.edit, call, now, chosen)
            if isinstance(result, AttentionCall):
                call = result
            else:
                outputs.append((one, chosen, result))
        if not outputs:
            return call
        output = call.run()
        for _, chosen, changed in outputs:
            output = torch.where(chosen, changed, output)
        return output


def listed(edit: Any, where: Where | None, heads: Heads | PerImage | None) -> Sequence[On]:
    """Edits with their places: one with ``where`` and ``heads``, or a list of ``On``. Raises
    EditError."""
    if not isinstance(edit, Sequence):
        return [On(edit, where, heads)]
    if not edit or where or heads or not all(isinstance(one, On) for one in edit):
        raise EditError(
            f"several edits are a list of On(edit, where=..., heads=...), each with its own place, "
            f"not {edit!r} with where={where} and heads={heads}"
        )
    return edit


def as_edit(given: Any) -> Edit:
    """An edit, or a plain function (call, now) -> call or output. Raises EditError."""
    if isinstance(given, Edit):
        return given
    if isinstance(given, SkipLayers):
        raise EditError(
            "SkipLayers leaves whole blocks out of a weakened pass: use it with perturb"
        )
    if isinstance(given, type) or not callable(given):
        hint = f": write {given.__name__}(...)" if isinstance(given, type) else ""
        raise EditError(
            f"{given!r} is no edit{hint}; an edit is an object of attncontrol.edits, or a function "
            "(call, now) that returns the changed call or its output"
        )
    return _Function(given)


def _chosen(edit: Edit, on: On, known: Mapping[str, Site]) -> dict[str, Tensor]:
    """By site which heads are changed, [image head], or [1 head] if the same ones in all images."""
    where = edit.where if on.where is None and on.heads is None else on.where
    if on.heads is None and where is None:
        raise SiteError(
            "say which attention to change: where=Where(kind='self', layers=('mid_block',)) or "
            "heads=[(site, head), ...]"
        )
    allowed = known if where is None else {s.name: s for s in where.select(known.values())}
    if on.heads is None:
        return {name: torch.ones(1, s.heads, dtype=torch.bool) for name, s in allowed.items()}
    images = on.heads.heads if isinstance(on.heads, PerImage) else (on.heads,)
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


def _require_calls(
    outputs: Sequence[tuple[_Placed, Tensor, Tensor]],
    chosen: Tensor,
    one: _Placed,
    call: AttentionCall,
) -> None:
    """An edit sees what those before it made of a call: there is none if they made an output."""
    for before, others, _ in outputs:
        if (others & chosen).any():
            raise EditError(
                f"{before.edit} gives an output at {call.site.name}, so {one.edit} after it has no "
                "call of these heads to change: put it before, on other heads, or in an edit(...) "
                "inside this one"
            )


def _of_rows(heads: Tensor, now: Moment) -> Tensor:
    """[row head 1 1] of [image head]."""
    if len(heads) > 1:
        count = len(now.text.prompts)
        if len(heads) != count:
            raise CouplingError(
                f"heads are given per image for {len(heads)}, not for {count} images"
            )
        rows = range(len(now.branches) * len(now.images))
        heads = heads[[now.image_of_row(row) for row in rows]]
    return heads[..., None, None]


def _on_heads(edit: Edit, call: AttentionCall, now: Moment, chosen: Tensor) -> Result:
    """The call in which the edit has changed the chosen heads, or the output that it gives, whose
    other heads are not to be used. Only the chosen heads are computed where that can be."""
    heads: Any = chosen.flatten(1).any(0).nonzero()[:, 0].tolist()
    if chosen.all() or call.below is not None:  # edits inside this one know whole calls only
        heads = list(range(call.query.shape[1]))
    result = edit(call if len(heads) == call.query.shape[1] else call.of_heads(heads), now)
    if isinstance(result, AttentionCall):
        if chosen.all():
            return result
        if (merged := with_heads(call, result, heads, chosen)) is not None:
            return merged
        result = result.run()
    output = result.new_zeros(len(result), call.query.shape[1], *result.shape[2:])
    output[:, heads] = result
    return output
