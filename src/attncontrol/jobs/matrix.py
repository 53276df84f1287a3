"""One entry that says many pictures: seeds, prompts, and the product of a matrix."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from attncontrol.checks.arguments import shown
from attncontrol.errors import SettingError
from attncontrol.jobs.forms import OWN, formed
from attncontrol.jobs.located import Located, Mistakes, meant

MANY = {"seeds": "seed", "prompts": "prompt"}
"""Fields of an entry that stand for several of another."""
_IN_MATRIX = "matrix."


@dataclass(frozen=True)
class Said:
    """The fields of an entry, those of ``parameters`` by names of their own, in their long forms;
    what it varies, in order; its lines; and the fields that it has, but wrong. ``usual`` are the
    defaults among them."""

    at: Located
    fields: Mapping[str, Any]
    varied: Mapping[str, Sequence[Any]]
    broken: frozenset[str]
    usual: "Said | None" = None

    @property
    def count(self) -> int:
        return prod(map(len, self.varied.values()))

    def line_of(self, name: str) -> int:
        own, many = name.partition(".")[0], {one: many for many, one in MANY.items()}
        for each in (name, own, many.get(name, name), "matrix"):
            if each in self.at.lines:
                return self.at.lines[each]
        return self.at.line

    def origin_of(self, name: str) -> int:
        """The line that gives a field, which may be that of a default."""
        usual = self.usual and name.partition(".")[0] in {
            each.partition(".")[0] for each in (*self.usual.fields, *self.usual.varied)
        }
        return self.usual.line_of(name) if self.usual and usual else self.line_of(name)

    def each(self) -> Iterator[dict[str, Any]]:
        """The fields of every picture: the last that varies fastest."""
        for values in product(*self.varied.values()):
            yield {**self.fields, **dict(zip(self.varied, values, strict=True))}


def said(entry: Located, known: Sequence[str], wrong: Mistakes) -> Said:
    """What an entry or the defaults say by themselves."""
    fields: dict[str, Any] = {}
    varied: dict[str, Any] = {}
    broken: set[str] = set()
    for name, value in _flat(entry, wrong):
        try:
            if name not in known and not name.startswith(OWN):
                raise SettingError(f"no such field; {meant(name, known)}")
            long = formed(name, value)
            if name not in MANY:
                fields[name] = long
            elif long is not None:
                varied[MANY[name]] = long
        except SettingError as error:
            wrong.add(entry.line_of(name), name, str(error))
            broken.add(MANY.get(name, name))
    matrix = _matrix(entry, known, wrong)
    for name in (varied.keys() | matrix) & fields.keys() | varied.keys() & matrix:
        wrong.add(entry.line_of(name), name, "it is given more than once: alone and as several")
    order = {name: varied[name] for name in ("prompt",) if name in varied}
    return Said(entry, fields, order | matrix | varied, frozenset(broken))


def _flat(entry: Located, wrong: Mistakes) -> Iterator[tuple[str, Any]]:
    """Parameters by names of their own, the matrix left out."""
    for name, value in entry.items():
        if name == "parameters" and isinstance(value, dict):
            yield from ((f"{OWN}{each}", inside) for each, inside in value.items())
        elif name == "parameters" and value is not None:
            wrong.add(entry.line_of(name), name, f"{shown(value)}: write {{name: value}}")
        elif name != "matrix":
            yield name, value


def _matrix(entry: Located, known: Sequence[str], wrong: Mistakes) -> dict[str, list[Any]]:
    given, found = entry.get("matrix"), {}
    if given is not None and not isinstance(given, dict):
        wrong.add(entry.line_of("matrix"), "matrix", f"{shown(given)}: write {{field: [values]}}")
        return {}
    for name, values in (given or {}).items():
        line = given.line_of(name) if isinstance(given, Located) else entry.line_of("matrix")
        try:
            fields = [each for each in known if each not in (*MANY, "matrix", "parameters")]
            if name not in fields and not name.startswith(OWN):
                raise SettingError(f"nothing that a matrix varies; {meant(name, fields)}")
            if not isinstance(values, list) or not values:
                raise SettingError(f"{shown(values)}: write a list of values")
            found[name] = [formed(name, value) for value in values]
        except SettingError as error:
            wrong.add(line, f"{_IN_MATRIX}{name}", str(error))
    return found


def with_defaults(own: Said, defaults: Said) -> Said:
    """An entry with what it does not say itself. Null says that the model or the method is to
    choose."""
    stated = own.fields.keys() | own.varied.keys()
    others = {name: value for name, value in defaults.fields.items() if name not in stated}
    varied = {name: value for name, value in defaults.varied.items() if name not in stated}
    order = {name: values for name, values in own.varied.items() if name == "prompt"}
    both = {**varied, **own.varied}
    first, last = both.pop("prompt", None), both.pop("seed", None)
    order = {"prompt": first} if first else {}
    order |= both | ({"seed": last} if last else {})
    usual = Said(defaults.at, others, varied, defaults.broken)
    return Said(own.at, {**others, **own.fields}, order, own.broken | defaults.broken, usual)
