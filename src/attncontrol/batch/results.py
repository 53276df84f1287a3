"""Results on disk that an interrupted run goes on with and several processes may share."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attncontrol.errors import ResultsError, WriteError
from attncontrol.verbs.about import versions
from attncontrol.writing import append, whole


def read_lines(file: Path) -> Iterator[Any]:
    """The values of a file; none if it does not exist. Lines that a killed process left half are
    skipped. Raises ResultsError for a file that ``append_lines`` did not begin."""
    text = file.read_bytes().decode("utf-8", "replace") if file.exists() else ""
    if text and text[0] != "\n":
        raise ResultsError(f"{file} holds no results of this command; move it elsewhere")
    for line in text.split("\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue


def append_lines(file: Path, values: Iterable[Any]) -> None:
    """In one write; the empty line before it ends what a killed process left half."""
    append(file, "\n".join(["", *map(json.dumps, values), ""]).encode())


def same_settings(file: Path, settings: Mapping[str, Any], *, of: Path) -> None:
    """Writes the settings of the results ``of`` to ``file``, with the versions. Raises as
    ``require_same_settings``."""
    require_same_settings(file, settings, of=of)
    if not file.exists():
        with whole(file) as part:
            part.write_text(json.dumps(_told(settings), indent=1), "utf-8")


def require_same_settings(file: Path, settings: Mapping[str, Any], *, of: Path) -> None:
    """Raises ResultsError if ``file`` is there and holds other settings, saying which."""
    if not file.exists():
        return
    try:
        there = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        there = None
    if not isinstance(there, dict):
        raise ResultsError(f"{file} holds no settings; remove it with {of}, or choose another one")
    if found := differences(there, _told(settings)):
        raise ResultsError(
            f"{of} was made with other settings, {file} ({'; '.join(found[:3])}); choose another "
            "folder"
        )


def require_results(folder: Path, mark: str, names: Collection[str]) -> None:
    """Raises WriteError for a folder that holds files, but not ``mark``, by which results are
    known, or something else where one of ``names`` is to be a file."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    shown = {name for name in there if name[0] != "."}
    if shown and mark not in there:
        raise WriteError(
            f"{folder} holds {min(shown)} and no results of this command, which have {mark}; give "
            "an empty or a new folder with --out"
        )
    for name in names:
        if (folder / name).is_dir():
            raise WriteError(f"{folder / name} is a folder; give another one with --out")


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], late: Collection[str] = ()
) -> list[str]:
    """In words. Of ``late`` names, what is not known yet is no difference."""
    return [
        f"{name.replace('_', ' ')}: {_short(there.get(name))} there, {_short(here.get(name))} here"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
        and not (name in late and None in (there.get(name), here.get(name)))
    ]


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has it; arguments of the call by their names."""
    values: dict[str, Any] = json.loads(json.dumps(dict(settings), default=repr))
    return values | values.pop("call", {}) | versions()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
