"""Short forms of fields, as on the command line, and what they stand for."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from attncontrol.batch.chosen_heads import load_heads
from attncontrol.batch.options import parse_seeds
from attncontrol.batch.short_forms import parse_box, parse_group, parse_groups, parse_move
from attncontrol.checks.arguments import shown
from attncontrol.errors import ResultsError, SettingError
from attncontrol.jobs.values import decoded

_BOX = re.compile(r"[^=]+(?:=[^\s=]*)?|=")
"""One of several: a text, = and numbers without spaces."""
_SPACED = re.compile(r"(?<=\d)\s*,\s*(?=[\d.])")
OWN = "parameters."
"""How fields of the method begin: parameters.sigma."""


def words(value: Any) -> Any:
    """ "red+cat,frog" or ["red+cat", "frog"] -> [["red", "cat"], ["frog"]]."""
    if isinstance(value, str):
        return parse_groups(value)
    if not isinstance(value, list):
        return value
    return [parse_group(each) if isinstance(each, str) else each for each in value]


def record(value: Any) -> Any:
    """``"red,cat"`` -> ["red", "cat"]."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def boxes(value: Any) -> Any:
    """``"cat=0,0,0.5,1 red frog=0.5,0,1,1"`` -> {"cat": (0.0, 0.0, 0.5, 1.0), ...}."""
    if not isinstance(value, str):
        return value
    parts = _BOX.findall(_SPACED.sub(",", value.strip()))
    pairs = [parse_box(part.strip()) for part in parts or [""]]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise SettingError(f"{shown(value)}: a word has two boxes")
    return found


def move(value: Any) -> Any:
    """ "cat=0.3,0" -> ("cat", 0.3, 0.0)."""
    return parse_move(value) if isinstance(value, str) else value


def seeds(value: Any) -> list[int]:
    """``"0-3,8"``, 5 or [0, 1, "4-7"] -> a list of numbers."""
    given = value if isinstance(value, list) else [value]
    for each in given:
        if isinstance(each, bool) or not isinstance(each, str | int):
            raise SettingError(f"{shown(each)}: write seeds as 0-3,8, or a list of numbers")
    return parse_seeds(",".join(map(str, given)))


def heads(value: Any) -> Any:
    """A file of ``heads search`` -> the heads that it names."""
    return _heads(value) if isinstance(value, str) else value


@cache
def _heads(file: str) -> list[tuple[str, int]]:
    try:
        return load_heads(Path(file))
    except ResultsError as error:
        raise SettingError(str(error)) from error


def lora(value: Any) -> Any:
    """``"a.safetensors=0.8,b"`` -> [{"path": "a.safetensors", "scale": 0.8}, {"path": "b"}]."""
    given = value.split(",") if isinstance(value, str) else value
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, list):
        return given
    return [_adapter(each) if isinstance(each, str) else each for each in given]


def _adapter(text: str) -> dict[str, Any]:
    path, _, scale = text.rpartition("=")
    try:
        return {"path": path.strip(), "scale": float(scale)} if path else {"path": text.strip()}
    except ValueError:  # a name with =
        return {"path": text.strip()}


def prompts(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise SettingError(f"{shown(value)}: write a list of prompts")
    return value


FORMS: Mapping[str, Callable[[Any], Any]] = {
    "words": words, "record": record, "boxes": boxes, "regions": boxes, "move": move,
    "seeds": seeds, "heads": heads, "lora": lora, "prompts": prompts,
}  # fmt: skip
"""Of fields that have short forms."""


def formed(name: str, value: Any) -> Any:
    """Raises SettingError."""
    return FORMS[name](value) if name in FORMS and value is not None else value


def cell(name: str, text: str) -> Any:
    """What a cell of a table or an option ``--default`` says. Raises SettingError."""
    if name.startswith(OWN):
        try:
            return decoded(text)
        except SettingError:
            return text
    structured = name in FORMS or name in ("matrix", "parameters")
    return decoded(text) if structured and text[0] in "[{" else text
