"""What ``attncontrol edit`` has around its calls, and how it shows what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image
from torch import Tensor

from attncontrol.attention.regions import Box
from attncontrol.batch.edit_changes import edits_for, place_of
from attncontrol.batch.generate import Picture, generate
from attncontrol.batch.settings import Editing
from attncontrol.maps.draw import boxed, faded
from attncontrol.running.session import Hooks, attach
from attncontrol.verbs.edit import edit
from attncontrol.verbs.taking import Taking


@contextmanager
def editing(pipe: Any, settings: Editing, seed: int, cells: list[Tensor | None]) -> Iterator[None]:
    """Around a call for a source and its edit; ``cells`` gets those that are taken over."""
    place = None
    if settings.word:
        place = place_in(pipe, settings.prompt, seed, settings.word, settings.call)
    with edit(pipe, edits_for(settings, place, pipe)):
        run = attach(pipe)
        taking, sites = Taking(run.source_of), dict(list(run.sites.items())[:1])  # of the grid
        with run.hooked(Hooks(sites=sites, ended=taking.ended)):
            yield
    cells.append(None if taking.last is None else taking.last[1])


def place_in(pipe: Any, prompt: str, seed: int, word: str, call: Mapping[str, Any]) -> Box:
    """Where the picture of a prompt and a seed shows a word: it is made for that."""
    (found,) = generate(pipe, [(prompt, seed)], [word], batch=1, **call)
    return place_of(found.maps[word])


def compared(
    made: Mapping[str, Sequence[Picture]], cells: Sequence[Tensor | None], settings: Editing
) -> dict[str, list[Image.Image]]:
    """Rows of pictures: the source, the second prompt from the same seed, what is edited, and which
    of its cells are those of the source, if any are, or which its regions."""
    images = {role: [picture.image for picture in some] for role, some in made.items()}
    _, role, *_ = settings.roles
    rows = {"source": images["source"]}
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
