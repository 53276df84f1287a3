"""``.yaml``: a list of entries, or a mapping of ``defaults`` and ``items``.

Plain values are those of YAML 1.2 and JSON: null, true, false and numbers; "no" and "0-3" are text.
Nothing is made but these, whatever tags say. Values are put together from the parser's events,
without recursion; what aliases repeat is counted as often as it is there.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from attncontrol.checks.arguments import shown
from attncontrol.errors import SettingError
from attncontrol.jobs.located import Located, Mistakes, meant
from attncontrol.jobs.values import DEEPEST

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of C is 10 times as fast
_MOST = 5_000_000  # values, those of aliases counted again
_PLAIN = [f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")]
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def entries(text: str, wrong: Mistakes) -> tuple[list[Any], Located | None]:
    """Of the items, and the defaults."""
    try:
        found = loaded(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it ends"
        wrong.add(mark.line + 1 if mark else 0, "", f"no YAML: {problem}")
        return [], None
    except SettingError as error:
        wrong.add(0, "", str(error))
        return [], None
    if not isinstance(found, Located):
        if not isinstance(found, list):
            wrong.add(0, "", f"{shown(found)}: write a list of entries, or items: and such a list")
        return found if isinstance(found, list) else [], None
    for name in found.keys() - {"defaults", "items"}:
        text = f"{meant(name, ('defaults', 'items'))}; entries are a list below items:"
        wrong.add(found.line_of(name), name, text)
    items, defaults = found.get("items"), found.get("defaults") or None
    if not isinstance(items, list):
        wrong.add(found.line_of("items"), "items", f"{shown(items)} is no list of entries")
    if defaults is not None and not isinstance(defaults, Located):
        wrong.add(found.line_of("defaults"), "defaults", f"{shown(defaults)} are no fields")
    return (
        items if isinstance(items, list) else [],
        defaults if isinstance(defaults, Located) else None,
    )


@dataclass
class _Open:
    """A mapping or list that is not yet at its end."""

    inside: Any
    anchor: str | None
    before: int
    key: str | None = None


class _Values:
    """What the events so far say."""

    def __init__(self) -> None:
        self.open = [_Open([], None, 0)]
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.count = 0

    def put(self, value: Any, event: Any, size: int = 1) -> None:
        """As the next item, key or value of what is open."""
        self.count += size
        if self.count > _MOST:
            raise SettingError(f"line {_line(event)}: more than {_MOST} values; write .jsonl")
        last = self.open[-1]
        if isinstance(last.inside, list):
            last.inside.append(value)
        elif last.key is None:
            self.name(last, value, event)
        else:
            last.inside[last.key] = value
            last.key = None

    def name(self, mapping: _Open, key: Any, event: Any) -> None:
        if not isinstance(key, str):
            raise SettingError(f"line {_line(event)}: the name of a field is text")
        if key in mapping.inside:
            raise SettingError(f"line {_line(event)}: {shown(key)} is there twice")
        mapping.key = key
        mapping.inside.lines[key] = _line(event)

    def begin(self, inside: Any, event: Any) -> None:
        if len(self.open) > DEEPEST + 3:
            raise SettingError(f"line {_line(event)}: it is nested more than {DEEPEST} deep")
        _require_no_tag(event)
        before = self.count
        self.put(inside, event)
        self.open.append(_Open(inside, event.anchor, before))

    def end(self) -> None:
        done = self.open.pop()
        self.keep(done.anchor, done.inside, self.count - done.before)

    def keep(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor:
            self.anchors[anchor] = value, size

    def again(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            raise SettingError(f"line {_line(event)}: *{event.anchor} stands for nothing yet")
        value, size = self.anchors[event.anchor]
        self.put(value, event, size)

    def scalar(self, event: Any) -> None:
        last = self.open[-1]
        is_key = isinstance(last.inside, Located) and last.key is None
        value = event.value if is_key else _scalar(event)
        self.put(value, event)
        self.keep(event.anchor, value, 1)


def loaded(text: str) -> Any:
    """The value of the one document. Raises YAMLError, and SettingError for what is not read."""
    values = _Values()
    for event in yaml.parse(text, Loader=_LOADER):
        kind = type(event)
        if kind is yaml.ScalarEvent:
            values.scalar(event)
        elif kind is yaml.MappingStartEvent:
            values.begin(Located(_line(event)), event)
        elif kind is yaml.SequenceStartEvent:
            values.begin([], event)
        elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
            values.end()
        elif kind is yaml.AliasEvent:
            values.again(event)
    documents = values.open[0].inside
    if len(documents) != 1:
        raise SettingError(f"there are {len(documents)} documents; write one")
    return documents[0]


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _require_no_tag(event: Any) -> None:
    if event.tag not in (None, "!", *_PLAIN):
        raise SettingError(f"line {_line(event)}: tags, such as {shown(event.tag)}, are not read")


def _scalar(event: Any) -> Any:
    """By the core schema of YAML 1.2."""
    text = event.value
    _require_no_tag(event)
    if event.tag or not event.implicit[0]:
        return text
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
