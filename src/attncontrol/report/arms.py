"""What a job compares: the ways in which it makes a picture of a prompt and a seed."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attncontrol.jobs.item import Item

_SETUP = ("model", "lora", "dtype", "height", "width", "steps", "guidance", "negative")
_METHOD = ("step_size", "heads", "heads_scale", "u")
_ASKED = ("words", "boxes", "source", "regions", "remove", "move")
"""What one asks for with a prompt: of an arm only where a job has several of one prompt."""
_Told = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Arm:
    """``setup`` and ``how`` are the settings that differ within the job, and have other values than
    their defaults here: pictures are compared within one setup."""

    method: str
    setup: _Told = ()
    how: _Told = ()

    @property
    def name(self) -> str:
        """ "auto, step_size 6%"."""
        return ", ".join([self.method, *(f"{name} {value}" for name, value in self._told)])

    @property
    def _told(self) -> _Told:
        return self.setup + self.how


def arms_of(items: Sequence[Item]) -> list[Arm]:
    """Of every item, one of few."""
    told = [settings_of(item) for item in items]
    differ = _differing(items, told)
    arms = [_arm(item, each, differ, ()) for item, each in zip(items, told, strict=True)]
    places = [(item.prompt, item.seed, arm) for item, arm in zip(items, arms, strict=True)]
    if len(set(places)) == len(places):
        return arms
    twice = {place for place, times in Counter(places).items() if times > 1}
    asked = _asked_apart(
        [(place, each) for place, each in zip(places, told, strict=True) if place in twice]
    )
    return [_arm(item, each, differ, asked) for item, each in zip(items, told, strict=True)]


def settings_of(item: Item) -> dict[str, str]:
    """What is asked beside prompt, seed and method, in words, without defaults; parameters of the
    method one by one."""
    told = item.model_dump(mode="json", exclude_defaults=True)
    for name in ("prompt", "seed", "method"):
        told.pop(name, None)
    told |= told.pop("parameters", {})
    return {name: said(value) for name, value in told.items()}


def shared_settings(items: Sequence[Item]) -> dict[str, str]:
    """Those that all items have, and the model."""
    told = [{"model": item.model, **settings_of(item)} for item in items]
    common = set.intersection(*(set(each.items()) for each in told)) if told else set()
    first = told[0] if told else {}
    return {name: value for name, value in first.items() if (name, value) in common}


def said(value: Any) -> str:
    """A setting in words: "red cat, frog"; "cat 0, 0.2, 0.5, 0.9"."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(
            " ".join(map(said, each)) if isinstance(each, list) else said(each) for each in value
        )
    if isinstance(value, dict):
        return "; ".join(f"{name} {said(each)}" for name, each in value.items())
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value)


def _differing(items: Sequence[Item], told: Sequence[dict[str, str]]) -> set[str]:
    """Settings of the whole that differ in the job, and of a method that differ within one."""
    names = {name for each in told for name in each} - {*_ASKED, "record"}
    values = {
        (name, None if name in _SETUP else item.method): set[str | None]()
        for name in names
        for item in items
    }
    for item, each in zip(items, told, strict=True):
        for name in names:
            values[name, None if name in _SETUP else item.method].add(each.get(name))
    return {name for (name, _), of in values.items() if len(of) > 1}


def _asked_apart(twice: Sequence[tuple[Any, dict[str, str]]]) -> tuple[str, ...]:
    """What tells pictures of one prompt, seed and arm apart."""
    values: dict[tuple[Any, str], set[str | None]] = {}
    for place, each in twice:
        for name in _ASKED:
            values.setdefault((place, name), set()).add(each.get(name))
    found = {name for (_, name), of in values.items() if len(of) > 1}
    return tuple(name for name in _ASKED if name in found)


def _arm(item: Item, told: dict[str, str], differ: set[str], asked: tuple[str, ...]) -> Arm:
    known = (*_SETUP, *_METHOD, *_ASKED, "record")
    own = [name for name in told if name not in known]  # parameters of the method
    how = [*_METHOD, *own]
    return Arm(
        item.method,
        tuple((name, told[name]) for name in _SETUP if name in differ and name in told),
        tuple((name, told[name]) for name in how if name in differ and name in told)
        + tuple((name, told[name]) for name in asked if name in told),
    )
