"""Masks of ``attncontrol edit``: pictures that are white where the edited picture may change."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attncontrol.attention.edit import Edit
from attncontrol.batch.edit_methods import Sources
from attncontrol.batch.settings import Editing
from attncontrol.edits.local_blend import LocalBlend
from attncontrol.edits.within import Within
from attncontrol.errors import SettingError
from attncontrol.prompts.difference import difference
from attncontrol.verbs import photo
from attncontrol.verbs.places import On

_WHITE = 128  # of 255; what is brighter may change


def mask_of(pipe: Any, settings: Editing, picture: Image.Image) -> Tensor:
    """Which pixels [height width] of a run's pictures may change, by a mask: it is scaled and
    cropped as the photo is. Raises SettingError for one without white, and for generated pictures
    one of another size than theirs."""
    if settings.photo is None:
        _require_size(pipe, settings, picture)
    (shown,) = photo.batch(pipe, [picture], None, settings.call)
    mask = torch.tensor(np.asarray(Image.fromarray(shown).convert("L")) >= _WHITE)
    if not mask.any():
        raise SettingError(
            "the mask is black, so nothing may change: paint white what may, on a picture of the "
            "same size"
        )
    return mask


def within(
    edits: Edit | list[On], mask: Tensor, source: Sources = 0, *, anew: bool = False
) -> list[list[On]]:
    """Edits that change a picture inside of a mask, one list for each context: in place of what
    LocalBlend finds there is the mask, which is last to change latents. ``anew`` as ``Within``."""
    listed = edits if isinstance(edits, list) else [On(edits)]
    others = [on for on in listed if not isinstance(on.edit, LocalBlend)]
    return [each for each in (others, [On(Within(mask, source, anew))]) if each]


def has_room(settings: Editing) -> bool:
    """Whether the noise in a mask is that of a seed: where there is to be more than a photo shows,
    whose own noise has no room for it."""
    masked = settings.photo is not None and settings.mask is not None
    return masked and difference(settings.prompt, settings.to).kind == "add"


def _require_size(pipe: Any, settings: Editing, picture: Image.Image) -> None:
    side = photo.longest_side(pipe)
    height, width = (settings.call.get(name, side) for name in ("height", "width"))
    if photo.read(picture).size != (width, height):
        raise SettingError(
            f"the mask has {picture.width} x {picture.height} pixels, the picture {width} x "
            f"{height}: paint it on a picture of that size"
        )
