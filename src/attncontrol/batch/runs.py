"""``run.json``: what was asked of a run, what it has made, and with which versions. It is written
before the first picture and kept true; what is read is checked whole."""

import codecs
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from attncontrol.batch.settings import (
    Editing,
    Exact,
    Generation,
    Text,
    Words,
    first_wrong,
)
from attncontrol.errors import ResultsError
from attncontrol.export.names import readable
from attncontrol.writing import put


class Picture(Exact):
    """One that was made. ``sha256`` is that of its file and of the sheets it is on, by name."""

    prompt: Text
    seed: int
    file: str
    compare_file: str | None
    sha256: dict[str, str]
    seconds: float

    def is_whole(self, out: Path) -> bool:
        return all(digest_of(out / name) == digest for name, digest in self.sha256.items())


class Generated(Picture):
    method: Text
    losses: tuple[float, ...]
    refinements: tuple[int, ...]
    memory: float | None
    maps_file: str
    found: list[str] | None


class Edited(Picture):
    role: Text


class Failure(Exact):
    prompt: Text
    error: str


class Run(Exact):
    """``command`` is what was typed; ``complete``: nothing is left to be made. ``seal`` is the
    SHA-256 of ``pictures`` but for what was measured, by which a change by hand is seen."""

    command: str
    settings: Generation | Editing
    versions: dict[str, str]
    pictures: Sequence[Picture] = ()
    failed: Sequence[Failure] = ()
    complete: bool = False
    seal: str = ""

    @property
    def folder(self) -> Path:
        """Where it is written unless the user says so: another one for other settings."""
        late = {"scheduler", "parameters"}
        asked = self.settings.model_dump_json(exclude=late) + repr(sorted(self.versions.items()))
        mark = hashlib.sha256(asked.encode()).hexdigest()[:8]
        return Path("attncontrol-out") / f"{readable(self.settings.units[0].prompt)}-{mark}"

    def write(self, out: Path) -> None:
        put(out / "run.json", sealed(self).model_dump_json(indent=1).encode())


class GenerationRun(Run):
    """``words``: of every prompt, those whose maps are drawn."""

    settings: Generation
    words: dict[str, Words]
    pictures: Sequence[Generated] = ()


class EditingRun(Run):
    settings: Editing
    pictures: Sequence[Edited] = ()


R = TypeVar("R", bound=Run)
_KINDS = {GenerationRun: "generate", EditingRun: "edit"}


def sealed(run: R) -> R:
    measured = {"seconds", "memory"}
    rows = [picture.model_dump(mode="json", exclude=measured) for picture in run.pictures]
    seal = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return run.model_copy(update={"seal": seal})


def load_run(file: Path, kind: type[R]) -> R:
    """Raises ResultsError for a file that is no ``run.json`` of this kind, naming what is wrong."""
    try:
        data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        run = TypeAdapter(kind).validate_json(data, strict=True)
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ResultsError(
            f"{file} is no run.json of attncontrol {_KINDS[kind]}: {first_wrong(error)}"
        ) from error
    if run.pictures and run != sealed(run):
        raise ResultsError(f"{file}: its pictures were changed by hand; remove them from it")
    return run


def digest_of(file: Path) -> str | None:
    """The SHA-256 of a file; None if there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
