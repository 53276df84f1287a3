"""What a run of ``attncontrol edit`` does to the attention of one source and one edited picture."""

from typing import Any

import torch
from scipy import ndimage
from torch import Tensor

from attncontrol import losses
from attncontrol.attention.edit import Edit
from attncontrol.attention.regions import Box
from attncontrol.batch.edit_methods import Sources, edits_of
from attncontrol.batch.edit_names import AUTO, editing
from attncontrol.batch.settings import Editing
from attncontrol.edits.move import Move
from attncontrol.edits.regions import Regions
from attncontrol.edits.remove import Remove
from attncontrol.objectives.objective import Objective
from attncontrol.verbs.places import On

STRONG = 0.5  # of the maximum of a map: what is above shows the thing


def edits_for(
    settings: Any, place: Box | None, pipe: Any = None, sources: Sources = 0, image: int = 1
) -> Edit | list[On]:
    """Of an ``Editing``, or a picture of a job that says the same. ``place`` is that of its word,
    if it has one, ``image`` the number of the picture that has regions. Raises SettingError for a
    method that the pipeline, if given, cannot have."""
    if settings.regions:
        return Regions(dict(settings.regions), images=(image,))
    if settings.remove and place:
        return Remove(place)
    if settings.move and place:
        return Move(place, by=settings.move[1:])
    return edits_of(settings.method, sources, pipe)


def objective_for(settings: Editing) -> Objective | None:
    """What steers source and edited picture, of a photo the edited one alone."""
    if settings.regions or settings.word or not editing(settings.method)[1]:
        return None
    return losses.method(AUTO)


def place_of(word_map: Tensor) -> Box:
    """The box around the largest part of a map [height width] that is above half of its maximum,
    with the cells that touch it."""
    strong = (word_map > STRONG * word_map.max()).numpy()
    parts, _ = ndimage.label(strong)
    sizes = torch.bincount(torch.as_tensor(parts).flatten().long())
    sizes[0] = 0
    inside = torch.as_tensor(parts == int(sizes.argmax())).nonzero()
    height, width = word_map.shape
    (top, left), (bottom, right) = inside.amin(0).tolist(), inside.amax(0).tolist()
    return (
        max(left - 1, 0) / width, max(top - 1, 0) / height,
        min(right + 2, width) / width, min(bottom + 2, height) / height,
    )  # fmt: skip
