"""Where a picture is its own and not the source's: what changes, apart from what stays."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source
from attncontrol.attention.words import Positions, named
from attncontrol.edits._changed import changed, has_new_things, shared
from attncontrol.edits._looking import look, look_at_source
from attncontrol.edits._maps import mean, relative, strong


def look_apart(
    notes: dict[Any, Any],
    call: AttentionCall,
    now: Moment,
    source: Source,
    words: Sequence[str],
    without: Sequence[str] | None,
) -> None:
    """Adds a call to the maps of ``words`` of an image and its source, and to those ``without`` of
    the source; see ``LocalBlend``. Raises WordError."""
    for image in now.images if now.purpose == "own" and "cond" in now.branches else ():
        if now.source_of(source, image) == image:
            continue
        seen = notes.setdefault(image, {})
        if not seen:
            seen |= {
                "words": _told_apart(now, source, image, words, without),
                "own": {},
                "rest": {},
            }
            seen |= {"joint": call.site.kind == "joint", "new": has_new_things(now, source, image)}
        inside, outside = seen["words"]
        look(seen["own"], call, now, source, image, inside)
        if outside:
            look_at_source(seen["rest"], call, now, source, image, outside)


def own_cells(seen: Mapping[str, Any], threshold: float | None, held: float, early: bool) -> Tensor:
    """Cells [height width] that are not the source's: ``early`` all but what stays in it; later
    where in either picture what changes is strong, and no less than what stays."""
    usual = 0.2 if seen["joint"] else 0.15
    own, rest = mean(seen["own"]), mean(seen["rest"]) if seen["rest"] else None
    if early:
        return torch.ones_like(own[0], dtype=torch.bool) if rest is None else ~strong(rest, held)[0]
    where = strong(own, usual if threshold is None else threshold, int(seen["new"]))
    return (where if rest is None else where & (relative(own) >= relative(rest))).any(0)


def _told_apart(
    now: Moment,
    source: Source,
    image: int,
    words: Sequence[str],
    without: Sequence[str] | None,
) -> tuple[Positions, list[int]]:
    """Of ``words``, or of what is changed; and in the source of those ``without``, or of the
    subjects that stay. Raises WordError."""
    of = now, source, image
    inside = named(*of, words) if words else changed(*of)
    outside = shared(*of) if without is None else named(*of, without)[0]
    return inside, [position for position in outside if position not in inside[0]]
