"""``job.json``: what a folder is for, written before its first picture. It is true as long as the
folder is, so that a picture can be made again among those that it was made with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from attncontrol.errors import ResultsError, WriteError
from attncontrol.jobs.batches import Batch, Plan, plan
from attncontrol.jobs.index import RANKS
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.places import Place

NAME = "job.json"


@dataclass(frozen=True)
class Begun:
    """All items of a folder, and its batches. ``parts`` are how many items came together: those
    that came later are in batches of their own, so that pictures stay as they are."""

    items: tuple[Item, ...]
    parts: tuple[int, ...]
    batch: int

    @property
    def plan(self) -> Plan:
        batches, start = list[Batch](), 0
        for count in self.parts:
            before, part = self.items[:start], self.items[start : start + count]
            batches += plan(Job(part), self.batch, {item.mark for item in before})
            start += count
        return Plan(tuple(batches))


def begin(
    place: Place, job: Job, batch: int, versions: Mapping[str, str], beside: bool = False
) -> Begun:
    """A place for this job: a new one, or one of some of its items, to which the others are added.
    ``beside``: it may be for other items too. Raises ResultsError if it is that of another job,
    batch size or version, WriteError if it holds something else."""
    data = place.get(NAME)
    if data is None:
        others = {name for name in place.names("") if name[0] != "."} - {NAME, RANKS}
        if others:
            raise WriteError(
                f"{place.shown()} holds {min(others)} and no job; give an empty or a new folder "
                "with --out"
            )
        begun = Begun(job.items, (len(job),), batch)
    else:
        told = _read(place, data)
        _require_same(told, versions, batch, place)
        begun = _grown(told, job, place, beside)
    items = [item.model_dump(mode="json", exclude_defaults=True) for item in begun.items]
    new = {"versions": dict(versions), "batch": batch, "parts": begun.parts, "items": items}
    place.put(NAME, json.dumps(new, indent=1).encode())
    return begun


def opened(place: Place) -> Begun | None:
    """What a place is for; None if it has no job. Raises ResultsError."""
    data = place.get(NAME)
    if data is None:
        return None
    told = _read(place, data)
    return Begun(_items(told["items"], place), tuple(told["parts"]), told["batch"])


def _grown(told: Mapping[str, Any], job: Job, place: Place, beside: bool) -> Begun:
    """With the items that are new."""
    there = _items(told["items"], place)
    marks, wanted = {item.mark for item in there}, {item.mark for item in job.items}
    if not (beside or marks <= wanted):
        raise ResultsError(
            f"{place.shown()} was begun with another job of {len(there)} items, not {len(job)}: "
            f"{len(marks - wanted)} of them are not in this one; give another folder with --out"
        )
    new = tuple(item for item in job.items if item.mark not in marks)
    parts = (*told["parts"], len(new)) if new else tuple(told["parts"])
    return Begun(there + new, parts, told["batch"])


def _items(told: Sequence[Any], place: Place) -> tuple[Item, ...]:
    try:
        return tuple(Item.model_validate(item) for item in told)
    except ValidationError as error:
        raise ResultsError(f"{place.shown(NAME)} is no job of this version: {error}") from error


def _read(place: Place, data: bytes) -> dict[str, Any]:
    try:
        told = json.loads(data)
        known = type(told["batch"]) is int and type(told["items"]) is list
        if known and type(told["versions"]) is dict and sum(told["parts"]) == len(told["items"]):
            return told
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise ResultsError(f"{place.shown(NAME)} is no job.json of attncontrol batch")


def _require_same(
    there: Mapping[str, Any], versions: Mapping[str, str], batch: int, place: Place
) -> None:
    wrong = [
        f"{name} {there['versions'].get(name)} there, {version} here"
        for name, version in versions.items()
        if there["versions"].get(name) != version
    ]
    if there["batch"] != batch:
        wrong.append(f"batch {there['batch']} there, {batch} here")
    if wrong:
        raise ResultsError(
            f"{place.shown()} was begun with {'; '.join(wrong)}: its pictures would not be the "
            "same; give another folder with --out"
        )
