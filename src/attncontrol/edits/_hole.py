"""A place of the picture that is emptied: nobody looks at it, and around it lies the source."""

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.edit import Result
from attncontrol.attention.moment import Moment
from attncontrol.attention.regions import onto
from attncontrol.attention.source import Source
from attncontrol.edits._rows import but_source
from attncontrol.errors import SettingError


def hidden(call: AttentionCall, now: Moment, source: Source, share: Tensor, soft: bool) -> Result:
    """Attention in which keys of the picture are hidden by their ``share`` [height width], in
    conditional rows that are no source's: their logits become 0, or minus infinity where the share
    is above a half. Raises SettingError if no key is left."""
    keys = call.key.new_zeros(call.key.shape[0], call.key.shape[2])
    for row in range(len(keys))[now.rows("cond")]:
        image = now.image_of_row(row)
        if now.source_of(source, image) != image:
            cells = keys[row, now.layout.rows([row]).image_slice]
            cells += share.to(cells).flatten().repeat(len(cells) // share.numel())
    if soft:
        return call.replace(key=call.key * (1 - keys)[:, None, :, None])
    if (keys > 0.5).all(1).any():
        raise SettingError(f"no key is left at {call.site.name}: name a smaller region")
    return but_source(call, call.masked(keys[:, None, None] <= 0.5), now, source)


def filled(latents: Tensor, around: Tensor, hole: Tensor, now: Moment, source: Source) -> Tensor:
    """Latents in the ``hole`` [height width], and others around it; a source's stay."""
    return _where_changed(~hole, around, latents, now, source)


def drawn_again(
    latents: Tensor, drawn: Tensor, hole: Tensor, now: Moment, source: Source
) -> Tensor:
    """Latents, others in the ``hole`` [height width]; a source's stay."""
    return _where_changed(hole, drawn, latents, now, source)


def _where_changed(
    cells: Tensor, others: Tensor, latents: Tensor, now: Moment, source: Source
) -> Tensor:
    inside = onto(cells.to(latents.device), latents, now.layout)
    rows = [k for k, image in enumerate(now.images) if now.source_of(source, image) != image]
    result = latents.clone()
    result[rows] = torch.where(inside, others[rows].to(latents), latents[rows])
    return result


def taken_along(latents: Tensor, cells: Tensor) -> Tensor:
    """Latents whose cells come from others, of the numbers ``cells`` [height width]: of [image
    channel *grid], or [image cell channel]."""
    numbers = cells.to(latents.device).flatten()
    if latents.ndim == 3:
        frames = latents.unflatten(1, (-1, len(numbers)))
        return frames[:, :, numbers].flatten(1, 2)
    return latents.flatten(-2)[..., numbers].unflatten(-1, tuple(cells.shape))
