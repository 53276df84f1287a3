"""Attention to words of an image and of its source, summed while the pipeline runs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.between import text_mass
from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.source import Source, SourcePass, words_of


def look(
    sums: dict[str, Any],
    call: AttentionCall,
    now: Moment,
    source: Source,
    image: int,
    positions: tuple[Sequence[int], Sequence[int]],
) -> None:
    """Adds the maps [2 height width] of a call to those of its site in ``sums``: attention to the
    ``positions`` of the source and of an image, mean over heads, conditional rows."""
    theirs = _of_source(call, now, source, image, positions[0])
    _add(sums, call, [theirs, _of_image(call, now, image, positions[1])])


def look_at_source(
    sums: dict[str, Any],
    call: AttentionCall,
    now: Moment,
    source: Source,
    image: int,
    positions: Sequence[int],
) -> None:
    """The same of the source of an image alone [1 height width]."""
    _add(sums, call, [_of_source(call, now, source, image, positions)])


def look_at(
    sums: dict[str, Any], call: AttentionCall, now: Moment, image: int, positions: Sequence[int]
) -> None:
    """The same of an image alone [1 height width]."""
    _add(sums, call, [_of_image(call, now, image, positions)])


def _add(sums: dict[str, Any], call: AttentionCall, maps: Sequence[Tensor]) -> None:
    sums[call.site.name] = sums.get(call.site.name, 0.0) + torch.stack(list(maps)).detach()


def _of_source(
    call: AttentionCall, now: Moment, source: Source, image: int, positions: Sequence[int]
) -> Tensor:
    text, number = now.told(source, image)
    if not isinstance(source, SourcePass):
        return _of_image(call, now, number, positions)
    words = words_of(text, number)
    kept = source.take(now.place("maps", site=call.site.name))[number].to(call.query.device)
    return kept[..., [words.index(position) for position in positions]].sum(-1)


def _of_image(call: AttentionCall, now: Moment, image: int, positions: Sequence[int]) -> Tensor:
    row = now.rows("cond").start + now.images.index(image)
    return text_mass(call.rows([row]), now.layout.rows([row]), [[positions]])[0, ..., 0].mean(0)
