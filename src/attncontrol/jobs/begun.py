"""``job.json``: what a folder is for, written before its first picture. It is true as long as the
folder is, so that a picture can be made again among those that it was made with."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from attncontrol.errors import ResultsError, WriteError
from attncontrol.jobs.batches import Plan, plan
from attncontrol.jobs.index import RANKS
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.places import Place

NAME = "job.json"


def begin(place: Place, job: Job, batch: int, versions: Mapping[str, str]) -> Plan:
    """The batches of a job in this place, which is its or is made so. Raises ResultsError if it
    is that of another job, batch size or version, WriteError if it holds something else."""
    told = {
        "versions": dict(versions),
        "batch": batch,
        "items": [item.model_dump(mode="json", exclude_defaults=True) for item in job.items],
    }
    data = place.get(NAME)
    if data is not None:
        _require_same(_read(place, data), told, place)
    else:
        others = {name for name in place.names("") if name[0] != "."} - {NAME, RANKS}
        if others:
            raise WriteError(
                f"{place.shown()} holds {min(others)} and no job; give an empty or a new folder "
                "with --out"
            )
        place.put(NAME, json.dumps(told, indent=1).encode())
    return plan(job, batch)


def opened(place: Place) -> Plan | None:
    """The batches of the job of a place; None if it has none. Raises ResultsError."""
    data = place.get(NAME)
    if data is None:
        return None
    told = _read(place, data)
    try:
        items = tuple(Item.model_validate(item) for item in told["items"])
    except ValidationError as error:
        raise ResultsError(f"{place.shown(NAME)} is no job of this version: {error}") from error
    return plan(Job(items), told["batch"])


def _read(place: Place, data: bytes) -> dict[str, Any]:
    try:
        told = json.loads(data)
        known = type(told["batch"]) is int and type(told["items"]) is list
        if known and type(told["versions"]) is dict:
            return told
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise ResultsError(f"{place.shown(NAME)} is no job.json of attncontrol batch")


def _require_same(there: Mapping[str, Any], here: Mapping[str, Any], place: Place) -> None:
    wrong = [
        f"{name} {there['versions'].get(name)} there, {version} here"
        for name, version in here["versions"].items()
        if there["versions"].get(name) != version
    ]
    if there["batch"] != here["batch"]:
        wrong.append(f"batch {there['batch']} there, {here['batch']} here")
    if there["items"] != here["items"]:
        wrong.append(f"another job of {len(there['items'])} items, not {len(here['items'])}")
    if wrong:
        raise ResultsError(
            f"{place.shown()} was begun with {'; '.join(wrong)}: its pictures would not be the "
            "same; give another folder with --out"
        )
