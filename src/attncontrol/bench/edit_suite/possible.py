"""Whether a model can have a method: it is opened, and left before a picture is made."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from PIL import Image

from attncontrol.batch.options import image_to_image
from attncontrol.bench.edit_suite.methods import WHOLE, Batch, changes, context
from attncontrol.bench.edit_suite.sources import MOVE, Case
from attncontrol.bench.edit_suite.tasks import tasks
from attncontrol.errors import AttnControlError, SettingError
from attncontrol.sprites.scenes import compose, render
from attncontrol.sprites.scorer import detect


def require_methods(pipe: Any, names: Sequence[str], kind: str) -> None:
    """Raises SettingError for one that the model cannot have."""
    case = example(kind)
    for name in names:
        if name.partition("@")[0] not in WHOLE:
            require_opened(pipe, name, changes(name, Batch([case])))
        elif name.startswith("sdedit"):
            require_image_to_image(pipe, name)


def require_opened(pipe: Any, name: str, parts: Sequence[Any]) -> None:
    """Edits, objectives and contexts, the outermost first. Raises SettingError."""
    try:
        with suppress(_Left), ExitStack() as stack:
            for part in parts:
                stack.enter_context(context(pipe, part))
            raise _Left
    except AttnControlError as error:
        why = str(error).split(". ")[0]  # without a list of all sites
        raise SettingError(_not_for(pipe, name, why)) from error


def require_image_to_image(pipe: Any, name: str) -> None:
    """Raises SettingError."""
    try:
        image_to_image(pipe)
    except ValueError as error:  # of diffusers
        why = "diffusers has no image to image of it"
        raise SettingError(_not_for(pipe, name, why)) from error


def example(kind: str) -> Case:
    """The first task of a kind, its source as the bundled world draws it."""
    task = next(tasks(kind))
    if not task.source:
        return Case(task)
    picture = Image.fromarray(render(compose(task.source, np.random.default_rng(0)))[0])
    return Case(task, picture, tuple(detect([picture])[0]), (MOVE, 0))


def _not_for(pipe: Any, name: str, why: str) -> str:
    return f"{name!r} is not for {type(pipe).__name__}: {why}; leave it out"


class _Left(Exception):  # noqa: N818 - a signal, not an error
    """Closes all that is open."""
