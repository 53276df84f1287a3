"""From what an entry says to its items, each checked by itself."""

from collections.abc import Iterator, Mapping, Set
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from attncontrol.batch.edit_names import AUTO
from attncontrol.batch.method_names import CHANGES, PLAIN, Kind, fields_of, kind_of, known
from attncontrol.checks.arguments import shown
from attncontrol.errors import AttnControlError, SettingError, WordError
from attncontrol.jobs.checks import check
from attncontrol.jobs.forms import OWN
from attncontrol.jobs.item import Item
from attncontrol.jobs.located import Mistakes, meant
from attncontrol.jobs.matrix import Said

_OF_METHODS = (
    "words", "boxes", "source", "regions", "remove", "move", "step_size", "heads", "heads_scale",
    "u",
)  # fmt: skip
"""Fields that some methods take."""
_STEP = "write a number of at least 0, or a share of the picture's range, such as 6%"


def items_of(said: Said, own: Said, wrong: Mistakes) -> Iterator[Item]:
    """``said``: with the defaults; ``own``: without. A setting that has no effect with a method is
    left out where a matrix or the defaults gave it, and a mistake where the entry did."""
    used: set[str] = set()
    stated = own.fields.keys() if "method" not in said.varied else set()
    for fields in said.each():
        try:
            item = _item(fields, stated, used, said.broken)
        except _Wrong as mistake:
            line_of = said.origin_of if mistake.alone else said.line_of
            for name, text in mistake.found:
                wrong.add(line_of(name), name, text)
        else:
            yield item
    for name in own.varied:
        if _is_of_methods(name) and name not in used and not len(wrong):
            wrong.add(said.line_of(name), name, "it has no effect with any method here")


class _Wrong(Exception):  # noqa: N818  # a signal
    """``alone``: by itself, whatever the other fields say."""

    def __init__(self, *found: tuple[str, str], alone: bool = False):
        super().__init__()
        self.found, self.alone = found, alone


def _item(fields: dict[str, Any], stated: Any, used: set[str], broken: Set[str]) -> Item:
    given = {name: value for name, value in fields.items() if value is not None and value != {}}
    if "method" not in given:
        given["method"] = _implied(given)
    kind = _kind(given["method"])
    idle = [name for name in given if _is_of_methods(name) and not _takes(kind, name, given)]
    if wrong := [(name, _no_effect(name, kind)) for name in idle if name in stated]:
        raise _Wrong(*wrong)
    for name in idle:
        del given[name]
    used.update(given)
    _complete(given, kind)
    needed = kind.needs | {"prompt"}
    if missing := sorted(needed - given.keys()):
        told = dict.fromkeys(missing, f"{kind.name} needs it") | {"prompt": "there is none"}
        raise _Wrong(*((name, told[name]) for name in missing if name not in broken))
    item = _validated(given)
    if wrong := [*check(item, kind)]:
        raise _Wrong(*wrong)
    return item


def _implied(given: Mapping[str, Any]) -> str:
    """The method of an entry that names none."""
    changes = [name for name in CHANGES if name in given]
    if "source" in given and not changes:
        raise _Wrong(("method", "say by which method the source is edited, such as p2p"))
    return changes[0] if changes else PLAIN


def _kind(method: Any) -> Kind:
    if not isinstance(method, str):
        raise _Wrong(("method", f"{shown(method)} is no name"), alone=True)
    plain = ":" not in method and "+" not in method and "@" not in method
    if plain and method not in (names := known()):
        text = f"{shown(method)}: no such method; {meant(method, names)}"
        raise _Wrong(("method", text), alone=True)
    try:
        return kind_of(method)
    except AttnControlError as error:
        raise _Wrong(("method", str(error)), alone=True) from error


def _is_of_methods(name: str) -> bool:
    return name in _OF_METHODS or name.startswith(OWN)


def _takes(kind: Kind, name: str, given: Mapping[str, Any]) -> bool:
    if name in ("heads_scale", "u") and not given.get("heads"):
        return False
    if name.startswith(OWN):
        return name[len(OWN) :] in _parameters(kind)
    return name in kind.takes


def _parameters(kind: Kind) -> Mapping[str, Any]:
    """Those that the loss of a method has."""
    return fields_of(AUTO if kind.edits else kind.name) if kind.steers else {}


def _no_effect(name: str, kind: Kind) -> str:
    if name in ("heads_scale", "u"):
        return "it has no effect without heads; leave it out"
    if name.startswith(OWN) and kind.steers:
        return f"{kind.name} has no such field; {meant(name[len(OWN) :], _parameters(kind))}"
    return f"it has no effect with {kind.name}; leave it out"


def _complete(given: dict[str, Any], kind: Kind) -> None:
    """The prompts of an edit follow from each other where what changes is told otherwise."""
    if kind.name == "move" and "prompt" in given:
        given.setdefault("source", given["prompt"])
    if kind.name == "move" and "source" in given:
        given.setdefault("prompt", given["source"])
    if kind.name == "remove" and kind.needs <= given.keys() and "prompt" not in given:
        given["prompt"] = _left(given["source"], given["remove"])


def _left(source: Any, word: Any) -> str:
    if not (isinstance(source, str) and isinstance(word, str)):
        raise _Wrong(("remove", f"{shown(word)}: write a word of the source"))
    return _without(source, word)


@lru_cache(10_000)
def _without(source: str, word: str) -> str:
    """What is left of a prompt; it is parsed for this, which takes some ms."""
    from attncontrol.prompts.without import without

    try:
        return without(source, word)
    except WordError as error:
        raise _Wrong(("remove", str(error))) from error


def _validated(given: Mapping[str, Any]) -> Item:
    fields = {name: value for name, value in given.items() if not name.startswith(OWN)}
    if switches := [name for name, value in fields.items() if isinstance(value, bool)]:
        raise _Wrong(
            *((name, f"{str(given[name]).lower()} is no value of it") for name in switches)
        )
    own = {name[len(OWN) :]: value for name, value in given.items() if name.startswith(OWN)}
    try:
        return Item.model_validate(fields | ({"parameters": own} if own else {}))
    except ValidationError as error:
        raise _Wrong(*_told(error), alone=True) from error
    except SettingError as error:
        raise _Wrong(("", str(error))) from error


def _told(error: ValidationError) -> Iterator[tuple[str, str]]:
    for each in error.errors(include_url=False, include_context=False):
        name = ".".join(map(str, each["loc"]))
        if name.startswith("step_size"):
            yield "step_size", f"{shown(each['input'])}: {_STEP}"
        else:
            text = each["msg"].replace("Input should", "it should").replace("Value error, ", "")
            yield name, f"{shown(each['input'])}: {text}"
