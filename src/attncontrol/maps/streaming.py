"""A folder that gets the steps of one run while it runs."""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from attncontrol.checks.arguments import brief
from attncontrol.errors import RecordError, WriteError
from attncontrol.maps.reading import PICTURES, STEP, parts_in, step_file
from attncontrol.maps.recording import Recording
from attncontrol.maps.store import Encoding, encoded_layers, header, is_record, write
from attncontrol.writing import is_passing, locked, remove, whole

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Stream:
    """The files of one run, in order; the last one knows how many there are."""

    folder: Path
    encoding: Encoding
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    written: int = 0

    def write(self, step: Recording, pictures: Tensor | None = None, *, last: bool = False) -> None:
        """The recording of one step; the steps of a stopped run make way for the first."""
        if not self.written:
            remove(self.folder.glob("*.safetensors"))
        place = {
            "run": self.run,
            "index": self.written,
            "total": self.written + 1 if last else None,
        }
        tensors = encoded_layers(step.layers, self.encoding)
        tensors |= step.taken.tensors if step.taken else {}
        if pictures is not None:
            tensors["pictures"] = pictures
        file = self.folder / step_file(step.steps[0])
        with whole(file) as part:
            write(part, tensors, header(step, self.encoding) | place, file)
        self.written += 1


@contextmanager
def placed(folder: Path) -> Iterator[Path]:
    """Where the steps of a new run are written: into ``folder`` if it is free or holds a run that
    was stopped; beside it if it holds a record, whose place is taken when the block ends without
    an error. What is replaced is named in a warning. Raises WriteError for a folder that holds
    anything else, or that another run is recorded into.
    """
    require_steps_alone(folder)
    with locked(folder):
        whole_record = _holds_record(folder)
        if not whole_record:
            yield folder
    if whole_record:
        with whole(folder, holds_steps) as part:
            part.mkdir()
            yield part


def holds_steps(folder: Path) -> bool:
    """Whether it holds steps of records and nothing else."""
    return folder.is_dir() and _foreign(folder) is None


def require_steps_alone(folder: Path) -> None:
    """Raises WriteError for what is no folder, or holds something else than steps of records."""
    try:
        if not folder.exists():
            return
        foreign = _foreign(folder) if folder.is_dir() else "it is a file"
    except OSError as error:
        raise WriteError(f"{brief(folder)} cannot be read ({error.strerror or error})") from error
    if foreign:
        raise WriteError(f"{folder} gets no steps of a record: {foreign}; choose another folder")


def _foreign(folder: Path) -> str | None:
    for each in sorted(folder.iterdir()):
        ours = re.fullmatch(STEP, each.name) or each.name == PICTURES
        if not is_passing(each.name) and not (ours and is_record(each)):
            return f"it holds {each.name}"
    return None


def _holds_record(folder: Path) -> bool:
    """Not if there is nothing, or a run that was stopped: that is named."""
    try:
        parts = parts_in(folder)
    except RecordError:  # damaged, or of several runs: kept until there is something better
        return any(folder.glob("*.safetensors"))
    last = parts[-1].header
    if last.run is not None and last.total is None:
        _LOG.warning("%s holds steps of a run that was stopped; they are replaced", folder)
        return False
    return True
