"""Foreground and background of a picture and of its source, by regions or by maps of words."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import Region, require_region
from attncontrol.attention.source import Source
from attncontrol.attention.words import named
from attncontrol.edits._looking import look
from attncontrol.edits._maps import mean, shown
from attncontrol.edits._places import inside, positions
from attncontrol.errors import SettingError


def require_one(union: bool, masks: tuple[Region, Region] | None, words: Sequence[str]) -> None:
    """Raises SettingError for several ways at once, and for masks that are none."""
    if sum(map(bool, (union, masks, words))) > 1:
        raise SettingError("choose one of union=True, masks=(...) and words=[...]")
    for mask in masks or ():
        require_region(mask)


def look_for(
    notes: dict[Any, Any], call: AttentionCall, now: Moment, source: Source, words: Sequence[str]
) -> None:
    """Keeps the maps of words of every image and its source, at the sites of one step so far."""
    _of_this_step(notes, now)
    for image in now.images if "cond" in now.branches else ():
        if now.source_of(source, image) != image:
            found = notes["maps"].setdefault(image, {})
            found.pop(call.site.name, None)
            look(found, call, now, source, image, named(now, source, image, words))


def sides_of(
    notes: dict[Any, Any],
    call: AttentionCall,
    now: Moment,
    threshold: float,
    masks: tuple[Region, Region] | None,
) -> Mapping[int, Tensor]:
    """By image which cells of its source and of itself show the words [2 cell]: those that are at
    least ``threshold`` of the way from the smallest to the largest value of the map. Nothing before
    the first map; in a call of the other branch what was so in that of the conditional one. Those
    of ``masks`` where they are given."""
    if masks:
        return dict.fromkeys(now.images, inside(masks, now.layout, call.key.device))
    _of_this_step(notes, now)
    if "cond" in now.branches:
        every = notes["maps"].items()
        found = {image: shown(mean(maps), threshold, now.layout) for image, maps in every}
        notes["sides"][call.site.name] = found
    return notes["sides"].get(call.site.name, {})


def _of_this_step(notes: dict[Any, Any], now: Moment) -> None:
    when = now.step.evaluation, now.step.view, now.purpose
    if notes.get("when") != when:
        notes |= {"when": when, "maps": {}, "sides": {}}


def same_side(call: AttentionCall, now: Moment, sides: Mapping[int, Tensor]) -> Tensor:
    """Which keys each query sees [row 1 query key]: cells of the picture those cells of the source
    that are on their own side, all if there are none, and everything that is no picture."""
    shape = len(call.query), 1, call.query.shape[2], call.key.shape[2]
    allowed = torch.ones(shape, dtype=torch.bool, device=call.query.device)
    for row in range(len(allowed)):
        pair = sides.get(now.image_of_row(row))
        if pair is not None:
            picture, _ = positions(call, now, row)
            source, own = pair.repeat(1, len(picture) // pair.shape[1])
            seen = own[:, None] == source
            allowed[row, 0, picture[:, None], picture] = seen | ~seen.any(1, keepdim=True)
    return allowed
