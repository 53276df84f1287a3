"""Methods by their names, for ``--method``; listing them imports no torch."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import typer

from attncontrol import losses
from attncontrol.batch.method_names import names
from attncontrol.batch.options import parse_step
from attncontrol.errors import LossError, SettingError

__all__ = ["check", "names", "objective", "parameters", "steering"]


def check(
    method: str, boxes: Mapping[str, Any], words: Sequence[Sequence[str]] | None = None
) -> None:
    """Raises typer.BadParameter for an unknown method, and for boxes and words that it cannot use
    or lacks; module:Name is imported and made."""
    if ":" in method:
        objective(method, words, boxes)
        return
    known = [*names(), "plain"]
    if method not in known:
        raise typer.BadParameter(
            f"{method!r}: choose from {', '.join(known)}, or write module:Name",
            param_hint="--method",
        )
    if method in names("layout") and not boxes:
        raise typer.BadParameter(
            f"layout methods, as {method}, need it; say where a word shall be: --box cat=0,0,0.5,1",
            param_hint="--box",
        )
    if boxes and method not in names("layout"):
        raise typer.BadParameter(
            f"{method} takes no boxes; these need it: {', '.join(names('layout'))}",
            param_hint="--box",
        )
    if boxes and words:
        raise typer.BadParameter(
            f"the words of {method} are those of its boxes; leave it out", param_hint="--words"
        )


def objective(
    method: str,
    words: Sequence[Sequence[str]] | None,
    boxes: Mapping[str, Any],
    step_size: str | float | None = None,
    option: str = "--method",
) -> tuple[Any, Any]:
    """What ``steer`` takes: an objective, None for plain, and a descent with this step size, None
    for the objective's own. Raises typer.BadParameter for words or boxes that it does not take."""
    if method == "plain":
        return None, None
    try:
        made = losses.method(method, None if boxes else words, boxes or None)
    except (SettingError, LossError) as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
    size = None if step_size is None else parse_step(str(step_size))
    return made, None if size is None else replace(made.descent, step_size=size)


def parameters(objective: Any, descent: Any) -> dict[str, Any] | None:
    """The numbers of a method, those of its own and of its descent."""
    if objective is None:
        return None
    own = {
        name: value
        for name, value in vars(objective).items()
        if name[0] != "_" and isinstance(value, bool | int | float | str)
    }
    steps = vars(descent or objective.descent)
    return own | {
        "descent": {
            name: sorted(map(list, value.items()))
            if isinstance(value, Mapping)
            else value
            if isinstance(value, int | float | None)
            else str(value)
            for name, value in steps.items()
        }
    }


def steering(
    pipe: Any,
    method: str,
    words: Sequence[Sequence[str]] | None,
    boxes: Mapping[str, Any],
    step_size: str | float | None,
) -> AbstractContextManager[Any]:
    """The context of the method; one without effect for plain."""
    from attncontrol.verbs.steer import steer

    made, descent = objective(method, words, boxes, step_size)
    return nullcontext() if made is None else steer(pipe, made, descent=descent)
