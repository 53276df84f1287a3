"""Losses by their name on the command line."""

import inspect
from importlib import import_module
from typing import Any

from attncontrol import listing
from attncontrol.checks.arguments import check
from attncontrol.errors import LossError, SettingError
from attncontrol.losses._names import Needs, makers
from attncontrol.objectives.boxes import Layouts
from attncontrol.objectives.objective import Objective, as_objective
from attncontrol.prompts.words import Groups


def method(name: str, words: Groups | None = None, layout: Layouts | None = None) -> Objective:
    """The objective of a method, by its name (``methods``) or as ``"module:Name"``: an Objective, a
    plain function of the maps, or a class or function that takes ``words`` or ``layout``; the
    module may lie in the current folder.

    Raises SettingError for an unknown name, for a layout that is missing, and for words or a layout
    that the method does not take; LossError if what it names is no objective.

        steer(pipe, method("boxdiff", layout={"cat": (0.0, 0.2, 0.5, 0.9)}))
    """
    found, takes = _named(name)
    given = {"words": words, "layout": layout}
    if wrong := [each for each, value in given.items() if value is not None and each not in takes]:
        raise SettingError(f"method {name} takes no {wrong[0]}: leave it out")
    if lacks := sorted(getattr(found, "__abstractmethods__", ())):
        raise LossError(f"method {name} is not complete: its class must define {', '.join(lacks)}")
    if not _makes(found, takes):
        return as_objective(found)
    if takes.get("layout") and layout is None:
        raise SettingError(
            f"method {name} needs a layout, {{'cat': (left, top, right, bottom)}} in fractions of "
            "the picture; on the command line --box cat=0,0.2,0.5,0.9"
        )
    if missing := [each for each, needed in takes.items() if needed and each not in given]:
        raise SettingError(
            f"method {name} needs more than words or a layout: give {', '.join(missing)} a default"
        )
    kept = {k: v for k, v in given.items() if k in takes and (v is not None or takes[k])}
    return as_objective(found(**kept))


def needs(name: str) -> Needs | None:
    """What a method is made from, as in ``methods``, also of ``"module:Name"``; None for one that
    is finished. Raises SettingError for an unknown name."""
    takes = _named(name)[1]
    return "layout" if "layout" in takes else "words" if "words" in takes else None


def _named(name: str) -> tuple[Any, dict[str, bool]]:
    """What a name stands for, and the arguments it takes, with whether they have no default."""
    check("name", name, str)
    if ":" in name:
        found = listing.named(name)
    elif name in makers():
        module = import_module(f"{__package__}.{name.replace('-', '_')}")
        found = vars(module)[makers()[name][0]]
    else:
        raise SettingError(
            f"no method is called {name}: choose from {', '.join(makers())}, or write "
            "module:Name, as my_losses:MyLoss; those of more than words or a layout need Python"
        )
    if isinstance(found, Objective) or not callable(found):
        return found, {}
    parameters = inspect.signature(found).parameters.values()
    return found, {
        each.name: each.default is each.empty
        for each in parameters
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }


def _makes(found: Any, takes: dict[str, bool]) -> bool:
    """Whether this makes a loss, as opposed to a loss itself."""
    makes = isinstance(found, type) or not takes or bool(takes.keys() & {"words", "layout"})
    return makes and callable(found) and not isinstance(found, Objective)
