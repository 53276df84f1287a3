"""What ``attncontrol edit`` is to change."""

from typing import Any

import typer

from attncontrol.cli import checks

METHODS = ("p2p", "replace", "blend", "masactrl", "style", "layout", "contents")
"""Those of ``batch.edit_methods``, known without torch."""


def change(given: Any) -> tuple[dict[str, Any], str]:
    """The settings that say what is edited, and the prompt of the edited picture."""
    changes = {"region": given.region, "remove": given.remove, "move": given.move}
    named = [name for name, value in changes.items() if value is not None]
    if given.method is not None or not named:
        named = ["method", *named]
    checks.effects(f"--{named[0]}", **dict.fromkeys(named[1:], True))
    if given.to is None and named[0] in ("method", "remove"):
        raise typer.BadParameter("say what the edited picture shall show: --to PROMPT")
    to = given.to or given.prompt
    if given.region:
        return {"method": "regions", "regions": checks.boxes(given.region, "--region")}, to
    if given.remove:
        return {"method": "remove", "remove": given.remove.strip()}, to
    if given.move:
        return {"method": "move", "move": _by(given.move)}, to
    method = given.method or METHODS[0]
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


def require_method(name: str) -> None:
    for part in name.split("+"):
        method, at, strength = part.partition("@")
        if method not in METHODS:
            raise typer.BadParameter(
                f"{method!r}: choose from {', '.join(METHODS)}", param_hint="--method"
            )
        if at and not _is_share(strength):
            raise typer.BadParameter(
                f"{part!r}: a strength is a share between 0 and 1, such as {method}@0.5",
                param_hint="--method",
            )


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
