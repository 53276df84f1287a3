"""What ``attncontrol edit`` is to change."""

from collections.abc import Mapping
from typing import Any

import typer

from attncontrol.batch.edit_names import AUTO, USUAL, changes_nothing, editing
from attncontrol.batch.short_forms import parse_move
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
    try:
        return parse_move(text)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--move") from error


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
    """Raises typer.BadParameter for a second prompt that says the same as the first."""
    if method == AUTO:
        from attncontrol.prompts.difference import difference

        same = difference(prompt, to).kind == "none"
    else:
        same = changes_nothing(method, prompt, to)
    if same:
        raise typer.BadParameter(
            f"it says what PROMPT says, {prompt!r}, so {method} would change nothing: say what "
            "the edited picture shall show instead, or use --region, --remove or --move",
            param_hint="--to",
        )
