"""What ``attncontrol edit`` is to change."""

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
    changes = {"region": given.region, "remove": given.remove, "move": given.move}
    named = [name for name, value in changes.items() if value is not None]
    if given.method is not None or not named:
        named = ["method", *named]
    checks.effects(f"--{named[0]}", **dict.fromkeys(named[1:], True))
    if given.to is None and named[0] == "method":
        raise typer.BadParameter("say what the edited picture shall show: --to PROMPT")
    if given.remove is not None:
        word = given.remove.strip()
        return {"method": "remove", "remove": word}, given.to or _without(given.prompt, word)
    to = given.to or given.prompt
    if given.region:
        return {"method": "regions", "regions": checks.boxes(given.region, "--region")}, to
    if given.move is not None:
        return {"method": "move", "move": _by(given.move)}, to
    method = given.method or METHODS[0]
    if method != AUTO:
        require_method(method)
    return {"method": method}, to


def _by(text: str) -> tuple[str, float, float]:
    """``"cat=0.3,0"`` -> ("cat", 0.3, 0.0)."""
    word, _, numbers = text.rpartition("=")
    try:
        right, down = map(float, numbers.split(","))
    except ValueError:
        right = down = 0.0
    if not word.strip() or not (-1 < right < 1 and -1 < down < 1) or right == down == 0:
        raise typer.BadParameter(
            f"{text!r}: write word=right,down in widths and heights of the picture, -1 to 1, such "
            "as cat=0.3,0",
            param_hint="--move",
        )
    return word.strip(), right, down


def _without(prompt: str, word: str) -> str:
    from attncontrol.prompts.without import without

    try:
        return without(prompt, word)
    except WordError as error:
        what = f"{error}, as --to PROMPT"
        raise typer.BadParameter(what, param_hint="--remove") from error


def require_method(name: str) -> None:
    try:
        editing(name)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--method") from error
