"""What ``attncontrol edit`` is to change."""

import math
from collections.abc import Mapping
from typing import Any

import typer

from attncontrol.batch.edit_names import AUTO, USUAL, editing
from attncontrol.cli import checks
from attncontrol.errors import SettingError, WordError

METHODS = tuple(USUAL)
NO_METHODS = ("regions", "remove", "move")
"""What the settings of a run call a change that no method makes."""


def change(given: Any) -> tuple[dict[str, Any], str]:
    """The settings that say what is edited, and the prompt of the edited picture."""
    _require_one(given)
    if given.remove is not None:
        word = given.remove.strip()
        return {"method": "remove", "remove": word}, given.to or _without(given.prompt, word)
    to = given.to or given.prompt
    if given.region:
        return {"method": "regions", "regions": checks.boxes(given.region, "--region")}, to
    if given.move is not None:
        return {"method": "move", "move": _by(given.move)}, to
    return {"method": given.method or METHODS[0]}, to


def require(settings: Mapping[str, Any], prompt: str, to: str) -> None:
    """Raises typer.BadParameter for a change that cannot be made, or changes nothing."""
    if settings.get("remove"):
        checks.words_in([prompt], [settings["remove"]], "--remove")
    elif settings.get("move"):
        checks.words_in([prompt], settings["move"][:1], "--move")
    elif not settings.get("regions"):
        _require_method(settings["method"])
        _require_difference(settings["method"], prompt, to)


def _require_one(given: Any) -> None:
    """Raises typer.BadParameter unless one change is asked for."""
    changes = {"--region": given.region, "--remove": given.remove, "--move": given.move}
    named = [name for name, value in changes.items() if value is not None]
    if named[1:]:
        raise typer.BadParameter(
            f"an edit makes one change, and {named[0]} is another: leave one of them out",
            param_hint=named[1],
        )
    if named:
        checks.effects(named[0], method=given.method is not None)
    elif given.to is None:
        raise typer.BadParameter("say what the edited picture shall show: --to PROMPT")


def _by(text: str) -> tuple[str, float, float]:
    """``"cat=0.3,0"`` -> ("cat", 0.3, 0.0)."""
    word, _, numbers = text.rpartition("=")
    try:
        right, down = map(float, numbers.split(","))
    except ValueError:
        right = down = math.nan
    if not word.strip() or not (-1 < right < 1 and -1 < down < 1):
        raise typer.BadParameter(
            f"{text!r}: write word=right,down in widths and heights of the picture, between -1 and "
            "1, such as cat=0.3,0",
            param_hint="--move",
        )
    if right == down == 0:
        raise typer.BadParameter(
            f"{text!r}: nothing would move; write how far to the right or down, such as "
            f"{word.strip()}=0.3,0",
            param_hint="--move",
        )
    return word.strip(), right, down


def _without(prompt: str, word: str) -> str:
    from attncontrol.prompts.without import require_thing, without

    try:
        require_thing(prompt, word)
    except WordError as error:
        raise typer.BadParameter(str(error), param_hint="--remove") from error
    try:
        return without(prompt, word)
    except WordError as error:
        what = f"{error}, as --to PROMPT"
        raise typer.BadParameter(what, param_hint="--remove") from error


def _require_method(name: str) -> None:
    try:
        if name != AUTO:
            editing(name)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--method") from error


def _require_difference(method: str, prompt: str, to: str) -> None:
    """From the same noise the same prompt gives the same picture, and what is taken from that is
    what is there; but for keys of the style at another scale."""
    if method == AUTO:
        from attncontrol.prompts.difference import difference

        same = difference(prompt, to).kind == "none"
    else:
        styles = [part for part in editing(method)[0] if part.name == "style"]
        scaled = any(part.strength not in (None, USUAL["style"]) for part in styles)
        same = prompt.split() == to.split() and not scaled
    if same:
        raise typer.BadParameter(
            f"it says what PROMPT says, {prompt!r}, so {method} would change nothing: say what "
            "the edited picture shall show instead, or use --region, --remove or --move",
            param_hint="--to",
        )
