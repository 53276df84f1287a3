"""``read_job``: a file of a job, checked whole before anything is made."""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attncontrol.checks.arguments import in_bytes, shown
from attncontrol.errors import JobError, SettingError
from attncontrol.jobs import lines_file, table_file, yaml_file
from attncontrol.jobs.build import items_of
from attncontrol.jobs.forms import cell
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job
from attncontrol.jobs.located import Located, Mistakes
from attncontrol.jobs.matrix import MANY, said, with_defaults
from attncontrol.jobs.values import require_plain

LARGEST = 64 * 2**20
"""Bytes of a file."""
MOST = 1_000_000
"""Pictures of a job."""
SUFFIXES = (".jsonl", ".csv", ".yaml", ".yml", ".txt")
FIELDS = (*MANY, *Item.model_fields, "matrix")
"""Names of the fields of an entry."""


def read_job(path: str | Path, defaults: Sequence[str] = ()) -> Job:
    """The job of a file ``.jsonl``, ``.csv``, ``.yaml`` or ``.txt``; see the README of this folder
    for what it says. ``defaults`` as on the command line, "steps=20", go before those of the file.
    Raises JobError, which tells all that is wrong line by line."""
    file, wrong = Path(path), Mistakes()
    entries, own = _entries(file, wrong)
    usual = said(_options(defaults, own, wrong), FIELDS, wrong)
    pictures: list[tuple[Item, int]] = []
    asked = 0
    for entry in entries:
        if wrong.enough:
            break
        alone = said(entry, FIELDS, wrong) if _is_entry(entry, wrong) else None
        if alone is None:
            continue
        whole = with_defaults(alone, usual)
        asked += whole.count
        if asked > MOST:
            wrong.add(entry.line, "", f"the job has more than {MOST} pictures: write several")
            break
        pictures += [(item, whole.at.line) for item in items_of(whole, alone, wrong)]
    if not pictures and not len(wrong):
        wrong.add(0, "", "it asks for no picture")
    wrong.require_none(str(path))
    return Job.of([item for item, _ in pictures], [line for _, line in pictures])


def read_entry(fields: Mapping[str, Any]) -> Item:
    """The picture of one entry, ``{"prompt": "a cat", "boxes": "cat=0,0,0.5,1"}``, checked as those
    of a file. Raises JobError, which tells all that is wrong with it."""
    wrong, found = Mistakes(), list[Item]()
    entry = Located(0, fields.items())
    if _is_entry(entry, wrong):
        alone = said(entry, FIELDS, wrong)
        found += items_of(alone, alone, wrong) if alone.count == 1 else ()
    wrong.require_none("the entry")
    if len(found) != 1:
        raise JobError(f"the entry says {alone.count} pictures: give one prompt and one seed")
    return found[0]


def _is_entry(entry: Any, wrong: Mistakes) -> bool:
    if not isinstance(entry, Located):
        wrong.add(0, "items", f"{shown(entry)}: an entry is written prompt: a cat")
        return False
    try:
        require_plain(entry)
    except SettingError as error:
        wrong.add(entry.line, "", str(error))
        return False
    return True


def _entries(file: Path, wrong: Mistakes) -> tuple[Iterator[Any], Located | None]:
    """Those of a file, and its defaults."""
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        wrong.add(0, "", f"a job is a file {', '.join(SUFFIXES)}, not {shown(file.suffix)}")
        return iter(()), None
    text = _text(file, wrong)
    if suffix == ".jsonl":
        return lines_file.entries(text, wrong), None
    if suffix == ".txt":
        return lines_file.prompts(text, wrong), None
    if suffix == ".csv":
        return table_file.entries(text, wrong), None
    if not text.strip():
        return iter(()), None
    entries, defaults = yaml_file.entries(text, wrong)
    return iter(entries), defaults


def _text(file: Path, wrong: Mistakes) -> str:
    """UTF-8, or UTF-16 that says so; empty if it cannot be read."""
    try:
        with file.open("rb") as opened:
            data = opened.read(LARGEST + 1)
        if len(data) > LARGEST:
            wrong.add(0, "", f"it is larger than {in_bytes(LARGEST)}: write several jobs")
            return ""
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        wrong.add(line, "", f"it is no UTF-8 text: {error.reason}; save it as UTF-8")
        return ""
    except (OSError, ValueError) as error:
        wrong.add(0, "", f"it cannot be read: {error}")
        return ""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        wrong.add(text[: text.index("\0")].count("\n") + 1, "", "it holds a NUL: it is no text")
        return ""
    return text


def _options(texts: Sequence[str], own: Located | None, wrong: Mistakes) -> Located:
    """The defaults of the file, and over them those given as "field=value"."""
    found = Located(0)
    if own:
        try:
            require_plain(own)
            found = Located(own.line, own.items())
            found.lines = dict(own.lines)
        except SettingError as error:
            wrong.add(own.line, "defaults", str(error))
    for text in texts:
        name, given, value = text.partition("=")
        try:
            if not given or not value.strip():
                raise SettingError("write a default as field=value, such as steps=20")
            found[name.strip()] = cell(name.strip(), value.strip())
            found.lines[name.strip()] = 0
            require_plain(found)
        except SettingError as error:
            wrong.add(0, f"default {shown(text)}", str(error))
    return found
