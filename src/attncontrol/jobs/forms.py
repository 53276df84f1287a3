"""Short forms of fields, as on the command line, and what they stand for."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from attncontrol.batch.chosen_heads import load_heads
from attncontrol.batch.options import parse_seeds
from attncontrol.checks.arguments import shown
from attncontrol.errors import ResultsError, SettingError
from attncontrol.jobs.values import decoded

_BOX = re.compile(r"\s*(.+?)=([^=\s]+)(?:\s+|$)", re.DOTALL)
OWN = "parameters."
"""How fields of the method begin: parameters.sigma."""


def words(value: Any) -> Any:
    """ "red+cat,frog" or ["red+cat", "frog"] -> [["red", "cat"], ["frog"]]."""
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list):
        return value
    groups = [each.split("+") if isinstance(each, str) else each for each in value]
    return [
        [word.strip() if isinstance(word, str) else word for word in group]
        if isinstance(group, list)
        else group
        for group in groups
    ]


def record(value: Any) -> Any:
    """ "red,cat" -> ["red", "cat"]."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def boxes(value: Any) -> Any:
    """ "cat=0,0.2,0.5,0.9 red frog=0.5,0,1,1" -> {"cat": [0.0, 0.2, 0.5, 0.9], ...}."""
    if not isinstance(value, str):
        return value
    found: dict[str, Any] = {}
    at = 0
    while at < len(value):
        match = _BOX.match(value, at)
        numbers = _numbers(match[2]) if match else None
        if not match or not numbers:
            raise SettingError(
                f"{shown(value[at:])}: write word=left,top,right,bottom in fractions of the "
                "picture, several with spaces between: cat=0,0.2,0.5,0.9 frog=0.5,0,1,1"
            )
        if match[1] in found:
            raise SettingError(f"{match[1]!r} has two boxes")
        found[match[1]] = numbers
        at = match.end()
    return found


def move(value: Any) -> Any:
    """ "cat=0.3,0" -> ["cat", 0.3, 0.0]."""
    if not isinstance(value, str):
        return value
    word, _, numbers = value.rpartition("=")
    found = _numbers(numbers)
    if not word.strip() or not found or len(found) != 2:
        raise SettingError(f"{shown(value)}: write word=right,down, such as cat=0.3,0")
    return [word.strip(), *found]


def seeds(value: Any) -> list[int]:
    """ "0-3,8", 5 or [0, 1, "4-7"] -> a list of numbers."""
    given = value if isinstance(value, list) else [value]
    if wrong := [
        each for each in given if isinstance(each, bool) or not isinstance(each, str | int)
    ]:
        raise SettingError(f"{shown(wrong[0])}: write seeds as 0-3,8, or a list of numbers")
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
    """ "a.safetensors=0.8,b" -> [{"path": "a.safetensors", "scale": 0.8}, {"path": "b"}]."""
    given = value.split(",") if isinstance(value, str) else value
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, list):
        return given
    return [_adapter(each) if isinstance(each, str) else each for each in given]


def _adapter(text: str) -> dict[str, Any]:
    path, _, scale = text.rpartition("=")
    numbers = _numbers(scale) if path else None
    return {"path": path.strip(), "scale": numbers[0]} if numbers else {"path": text.strip()}


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


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        return None
