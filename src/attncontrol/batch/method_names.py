"""What a method is by its name, and what it is made from: known without torch."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attncontrol import listing, losses
from attncontrol.batch.edit_names import USUAL, editing
from attncontrol.checks import arguments
from attncontrol.errors import AttnControlError, SettingError
from attncontrol.losses._names import makers

PLAIN = "plain"
CHANGES = ("regions", "remove", "move")
"""Edits that no method makes."""
_FIRST = ("auto", "attend-and-excite", "syngen")  # to try first
_STEERING = frozenset({"step_size", "parameters"})
_HEADS = frozenset({"heads", "heads_scale", "u"})
_PLAIN_TYPES = {"float": float, "int": int, "bool": bool, "str": str}


@dataclass(frozen=True)
class Kind:
    """Which settings of a picture a method takes, and which of them it cannot do without."""

    name: str
    takes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    @property
    def edits(self) -> bool:
        """Whether it changes a picture from another, if there is one."""
        return "source" in self.takes

    @property
    def steers(self) -> bool:
        return "step_size" in self.takes


def names(needs: str | None = None) -> list[str]:
    """Of all losses, or of those that need "words" or a "layout"."""
    fitting = {name for name, need in losses.methods().items() if needs in (None, need)}
    return [name for name in _FIRST if name in fitting] + sorted(fitting - set(_FIRST))


@cache
def known() -> tuple[str, ...]:
    """All names, but for strengths and what is put together."""
    return (PLAIN, *names(), *USUAL, *CHANGES)


@cache
def kind_of(method: str) -> Kind:
    """Raises SettingError for an unknown name; of module:Name, which is imported, for what cannot
    be."""
    if method == PLAIN:
        return Kind(method, _HEADS)
    if method == "regions":
        return Kind(method, frozenset({"regions", "source"}), frozenset({"regions"}))
    if method in CHANGES:
        return Kind(method, frozenset({method, "source"}), frozenset({method, "source"}))
    if method in losses.methods():
        return _loss(method, losses.methods()[method])
    if ":" in method:
        return _loss(method, _needs(method))
    auto = editing(method)[1]
    takes = frozenset({"source"}) | (_STEERING if auto else frozenset())
    return Kind(method, takes, frozenset({"source"}))


def _loss(method: str, need: str | None) -> Kind:
    made_of = {"words": {"words"}, "layout": {"boxes"}}.get(need or "", set())
    needs = frozenset({"boxes"} if need == "layout" else set())
    return Kind(method, _STEERING | _HEADS | made_of, needs)


def _needs(method: str) -> str | None:
    """Of module:Name. Raises SettingError, whatever the module does."""
    try:
        return losses.needs(method)
    except AttnControlError:
        raise
    except Exception as error:  # of code that is not ours
        raise SettingError(f"{method} cannot be imported: {error!r}") from error


@cache
def fields_of(method: str) -> Mapping[str, Any]:
    """The fields of its own that a loss has, and those of its descent behind "descent.", with what
    they may be, as far as that is known without torch. Of module:Name those of a dataclass."""
    found = {f"descent.{name}": hint for name, hint in _fields(_DESCENT, "Descent").items()}
    del found["descent.step_size"]
    if ":" in method:
        fields = getattr(listing.named(method), "__dataclass_fields__", ())
        found |= dict.fromkeys(fields, Any)
    elif method in makers():
        file = _LOSSES / f"{method.replace('-', '_')}.py"
        found |= _fields(file, makers()[method][0])
    given = {"words", "layout", "descent"}
    return MappingProxyType({name: hint for name, hint in found.items() if name not in given})


_LOSSES = Path(losses.__path__[0])
_DESCENT = _LOSSES.parent / "objectives" / "descent.py"


def _fields(file: Path, kind: str) -> dict[str, Any]:
    """Of a dataclass, read from the text of its file. A function has none."""
    body = [
        each
        for node in listing.files(str(file.parent))[file.stem].body
        if isinstance(node, ast.ClassDef) and node.name == kind
        for each in node.body
    ]
    return {
        each.target.id: _hint(each.annotation)
        for each in body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }


def _hint(annotation: ast.expr) -> Any:
    """What ``checks`` knows by its name; of anything else it is not known."""
    name = annotation.id if isinstance(annotation, ast.Name) else ""
    return _PLAIN_TYPES.get(name) or vars(arguments).get(name, Any)
