"""What ``attncontrol edit`` has around its calls, and how it shows what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from PIL import Image
from torch import Tensor

from attncontrol.attention.regions import Box
from attncontrol.batch.edit_changes import edits_for, place_of
from attncontrol.batch.edit_masks import has_room, within
from attncontrol.batch.edit_sources import KeptPhoto, Unchanged
from attncontrol.batch.generate import Picture, generate
from attncontrol.batch.settings import Editing
from attncontrol.inversion.trajectory import Trajectory
from attncontrol.maps.draw import boxed, faded
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.edit import edit
from attncontrol.verbs.retrace import retrace
from attncontrol.verbs.taking import Taking

Start = int | Trajectory | KeptPhoto
"""What a source is made from: a seed, or the trajectory of a photo, with what is taken of it."""


@contextmanager
def editing(
    pipe: Any,
    settings: Editing,
    start: Start,
    cells: list[Tensor | None],
    mask: Tensor | None = None,
) -> Iterator[None]:
    """Around a call for a source and its edit, of a kept photo for the edit alone, which changes
    inside of ``mask`` alone; ``cells`` gets those that are taken over."""
    place, source = None, start.source if isinstance(start, KeptPhoto) else 0
    with ExitStack() as stack:
        if isinstance(start, Trajectory):
            stack.enter_context(retrace(pipe, start))
        if isinstance(start, KeptPhoto):
            stack.enter_context(retrace(pipe, start.trajectory, images=()))
        if settings.word:
            again = settings.prompt, seed_of(start), settings.word, call_of(settings, start)
            place = place_in(pipe, *again)
        edits = edits_for(settings, place, pipe, source)
        anew = has_room(settings)
        for each in [edits] if mask is None else within(edits, mask, source, anew=anew):
            stack.enter_context(edit(pipe, each))
        run = attach(pipe)
        watch = Unchanged(start.source) if isinstance(start, KeptPhoto) else Taking(run.source_of)
        sites = dict(list(run.sites.items())[:1])  # of the grid
        with run.hooked(Hooks(sites=sites, ended=watch.ended)):
            yield
    cells.append(None if watch.last is None else watch.last[-1])


def place_in(pipe: Any, prompt: str, seed: int, word: str, call: Mapping[str, Any]) -> Box:
    """Where the picture of a prompt and a seed shows a word: it is made for that."""
    (found,) = generate(pipe, [(prompt, seed)], [word], batch=1, **call)
    return place_of(found.maps[word])


def seed_of(start: Start) -> int:
    """A run that retraces draws no noise."""
    return start if isinstance(start, int) else 0


def call_of(settings: Editing, start: Start) -> dict[str, Any]:
    """Of the pipeline; pictures are as large as the photo."""
    call = dict[str, Any](settings.call)
    if isinstance(start, int):
        return call
    return call | {"height": start.size[0], "width": start.size[1]}


def compared(
    made: Mapping[str, Sequence[Picture]],
    cells: Sequence[Tensor | None],
    settings: Editing,
    photo: Image.Image | None = None,
) -> dict[str, list[Image.Image]]:
    """Rows of pictures: the source, the second prompt from the same seed, what is edited, and which
    of its cells are those of the source, if any are, or which its regions. Of a photo: as it is and
    as it comes back, and edits at other strengths."""
    images = {role: [picture.image for picture in some] for role, some in made.items()}
    _, role, *others = settings.roles
    rows = {"source": images["source"]}
    if photo is not None:
        rows = {"picture": [photo] * len(images["source"]), "its reconstruction": images["source"]}
        rows |= {other: images[other] for other in others}
    if "plain" in images:
        rows["same seed, new prompt"] = images["plain"]
    rows[settings.method] = edited = images[role]
    if settings.regions:
        rows["its regions"] = [boxed(image, settings.regions) for image in edited]
    elif any(of_source is not None for of_source in cells):
        rows["pale: cells of the source"] = [
            image if of_source is None else faded(image, of_source)
            for image, of_source in zip(edited, cells, strict=True)
        ]
    return rows
