"""Entries of a job's file with the lines that they come from, and what is wrong with them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from attncontrol.checks.arguments import brief
from attncontrol.errors import JobError

_SHOWN = 20
_KEPT = 1000
_ENOUGH = 10_000


class Located(dict[str, Any]):
    """An entry: its fields, the line where it begins, and those of fields on lines of their own."""

    def __init__(self, line: int, fields: Iterable[tuple[str, Any]] = ()):
        super().__init__(fields)
        self.line = line
        self.lines: dict[str, int] = {}

    def line_of(self, name: str) -> int:
        return self.lines.get(name, self.line)


@dataclass(frozen=True)
class Wrong:
    """A mistake. ``line`` is 0 for what is no line of the file, such as its size."""

    line: int
    field: str
    text: str

    def __str__(self) -> str:
        place = [f"line {self.line}"] if self.line else []
        return f"{', '.join([*place, *filter(None, [self.field])])}: {self.text}".lstrip(": ")


@dataclass
class Mistakes:
    """Those of a file, each once; beyond ``_KEPT`` they are counted alone."""

    kept: dict[Wrong, None] = field(default_factory=dict)
    more: int = 0

    def add(self, line: int, name: str, text: str) -> None:
        wrong = Wrong(line, brief(name), brief(text))
        if len(self.kept) < _KEPT:
            self.kept[wrong] = None
        elif wrong not in self.kept:
            self.more += 1

    def __len__(self) -> int:
        return len(self.kept) + self.more

    @property
    def enough(self) -> bool:
        """Whether to read no further."""
        return len(self) >= _ENOUGH

    def require_none(self, file: str) -> None:
        """Raises JobError that says all of them, of very many the first."""
        if not self.kept:
            return
        first = sorted(self.kept, key=lambda wrong: wrong.line)
        rest = len(self) - _SHOWN
        lines = [*map(str, first[:_SHOWN]), *([f"and {rest} more"] if rest > 0 else [])]
        count = f"{len(self)} mistakes" if len(self) > 1 else "1 mistake"
        count += " or more" if self.enough else ""
        text = "\n  ".join([f"{file} has {count}; nothing was made:", *lines])
        raise JobError(text, tuple(first))


def meant(name: str, known: Iterable[str]) -> str:
    """What to say about a name that is not among those that are known."""
    names = list(known)
    near = get_close_matches(name.lower(), names, 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
