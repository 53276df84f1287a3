"""Values of a job's file: JSON as it is meant, text that can be shown, no deep nesting."""

import json
import math
import re
from typing import Any

from attncontrol.checks.arguments import shown
from attncontrol.errors import SettingError

DEEPEST = 10
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def decoded(text: str) -> Any:
    """JSON. Raises SettingError for what is none, for a key that is there twice, and NaN."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise SettingError(f"no JSON at character {error.colno}: {error.msg}") from error
    except SettingError:
        raise
    except (ValueError, RecursionError) as error:  # a number of 5000 digits, nesting
        why = "no JSON that can be read: a number is too long, or it is nested too deep"
        raise SettingError(why) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise SettingError(f"{shown(twice)} is there twice")
    return found


def _no_number(text: str) -> Any:
    raise SettingError(f"{text} is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)


def require_plain(value: Any, deepest: int = DEEPEST) -> None:
    """Raises SettingError for text that a terminal or a file cannot show, numbers that are none,
    and nesting beyond ``deepest``."""
    if isinstance(value, str):
        if _UNSHOWN.search(value):
            raise SettingError(f"{shown(value)} holds control characters, or is no text")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise SettingError(f"{value} is no finite number")
    elif isinstance(value, dict | list):
        if not deepest:
            raise SettingError(f"it is nested more than {DEEPEST} deep")
        inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        for each in inside:
            require_plain(each, deepest - 1)
