"""Whether the settings of an item fit each other, its prompt and its model: without torch."""

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from attncontrol.batch import model_files
from attncontrol.batch.edit_names import AUTO, changes_nothing
from attncontrol.batch.method_names import CHANGES, Kind, fields_of
from attncontrol.batch.options import require_model
from attncontrol.checks.arguments import fits, in_words, shown
from attncontrol.errors import AttnControlError
from attncontrol.jobs.item import Item
from attncontrol.prompts.presence import absent

Found = Iterator[tuple[str, str]]
"""Field and what is wrong with it."""


def check(item: Item, kind: Kind) -> Found:
    yield from _words(item)
    yield from _edited(item, kind)
    yield from _numbers(item)
    yield from _model(item)
    if item.parameters:
        yield from _parameters(item, kind)


def _words(item: Item) -> Found:
    """They stand in the prompt."""
    words = [word for group in item.words or () for word in group]
    yield from _missing("words", [item.prompt], words)
    yield from _missing("boxes", [item.prompt], item.boxes)
    source = [item.source] if item.source else []
    yield from _missing("record", [item.prompt, *source], item.record or ())
    if item.remove or item.move:
        word = item.remove or (item.move or ("",))[0]
        yield from _missing("remove" if item.remove else "move", source, [word])


def _missing(name: str, prompts: list[str], words: Iterable[str]) -> Found:
    """Words that are in none of the prompts."""
    for word in words:
        told = [absent(prompt, word) for prompt in prompts]
        if all(told):
            yield name, str(told[0])


def _edited(item: Item, kind: Kind) -> Found:
    if item.move and item.move[1:] == (0, 0):
        yield "move", "by 0, 0 nothing would move"
    if not kind.edits or item.method in CHANGES:
        return
    if changes_nothing(item.method, item.prompt, str(item.source)):
        yield "source", f"it says what the prompt says, so {item.method} would change nothing"


def _numbers(item: Item) -> Found:
    if item.heads and len(set(item.heads)) < len(item.heads):
        yield "heads", "a head is there twice"
    if item.negative and item.guidance is not None and item.guidance <= 1:
        yield "negative", f"it has no effect with guidance {item.guidance:g}: write one above 1"


def _model(item: Item) -> Found:
    wrong, about = _about(item.model)
    if wrong:
        yield "model", wrong
    if not about:
        return
    if item.steps and about.steps and item.steps > about.steps:
        yield "steps", f"{item.steps}: the schedule of {about.name} has {about.steps} steps"
    for name in ("height", "width"):
        side = getattr(item, name)
        if side and about.multiple and side % about.multiple:
            yield name, f"{side}: {about.name} draws multiples of {about.multiple} pixels"
    for adapter in item.lora:
        if wrong := _no_files(adapter.path):
            yield "lora", wrong


@cache
def _about(name: str) -> tuple[str | None, model_files.Model | None]:
    """What is wrong with a model, and what its files say if they are here."""
    try:
        require_model(name)
        about = model_files.read(name) if model_files.is_here(name) else None
        if about is not None:
            about.require_pictures()
        return None, about
    except (AttnControlError, OSError) as error:  # of a name that is too long
        return str(error), None


@cache
def _no_files(path: str) -> str | None:
    """Of a LoRA that can be no hub id."""
    looks = path.count("/") == 1 and not path.startswith((".", "~", "/"))
    try:
        if Path(path).exists() or (looks and Path(path).suffix != ".safetensors"):
            return None
    except OSError as error:  # a name that is too long
        return str(error)
    return f"{shown(path)}: there is no such file or folder, and it is no hub id, owner/name"


def _parameters(item: Item, kind: Kind) -> Found:
    known = fields_of(AUTO if kind.edits else item.method)
    for name, value in item.parameters.items():
        if not fits(value, known[name]):
            yield f"parameters.{name}", f"{shown(value)}: write {in_words(known[name])}"
    given = item.parameters.get("descent.thresholds", {})
    if not (isinstance(given, dict) and all(map(_is_threshold, given.items()))):
        text = f"{shown(given)}: write shares of the run and values, such as {{0.2: 0.5}}"
        yield "parameters.descent.thresholds", text


def _is_threshold(pair: tuple[str, Any]) -> bool:
    try:
        return 0 <= float(pair[0]) <= 1 and fits(pair[1], float)
    except ValueError:
        return False
