"""Passes that were kept, in memory or on disk.

A file is one of safetensors, a folder has one for every step and ``pass.safetensors``. Tensors are
named NAME/STEP/VIEW/BRANCH/SITE, each [image ...]; see ``Place``. The metadata entry
``attncontrol.kept`` is JSON:

    schema      1
    run         the name of the pass, the same in all files of a folder
    facts       what run it is of, see ``Facts``; null in the files of steps
    step        of the file of a step, else null
    checksums   for every tensor 8 hexadecimal digits, see ``checksum``

``attncontrol.checksum`` is the CRC-32 of it.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from attncontrol.attention.source import Facts, Place, SourcePass
from attncontrol.errors import CouplingError, RecordError, WriteError
from attncontrol.maps.opened import checksum, checksum_of, opened, path_of
from attncontrol.writing import Unfinished, is_passing, whole

_WHAT = {"what": "a kept pass", "by": "keep(pipe, edit, to=...) or source.save(...)"}
_ABOUT = "attncontrol.kept"


@dataclass(eq=False, repr=False)
class KeptPass(SourcePass):
    """What ``keep`` kept of a pass, for the ``source`` of edits.

        with keep(pipe, Replace()) as source:
            cat = pipe("a cat and a car").images[0]

    It is complete when the block has ended without an error. ``source[1]`` is one of its images,
    ``source[0, 0, 1]`` one for every image of another run.
    """

    said: Facts | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    images: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        if self.said is None:
            return "KeptPass(not finished)"
        size = f", {self.nbytes / 2**20:.1f} MiB"
        return f"KeptPass({len(self.chosen)} images, {self.said.steps} steps{size})"

    def complete(self, facts: Facts, tensors: Mapping[str, Tensor]) -> None:
        """It is what was kept."""
        self.said, self.tensors = facts, tensors

    @property
    def facts(self) -> Facts:
        if self.said is None:
            raise CouplingError(
                "the source was not kept to the end: use it after the block of keep(...), in which "
                "the pipeline has run through all steps"
            )
        return self.said

    @property
    def nbytes(self) -> int:
        """How much it holds, of all its images."""
        if isinstance(self.tensors, _Stored):
            return sum(file.stat().st_size for file in self.tensors.files)
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def __contains__(self, place: object) -> bool:
        return str(place) in self.tensors

    def __getitem__(self, images: int | tuple[int, ...]) -> "KeptPass":
        chosen, own = (images,) if isinstance(images, int) else tuple(images), self.chosen
        if not chosen or any(not 0 <= image < len(own) for image in chosen):
            raise IndexError(f"there is no image {images} among the {len(own)} of this source")
        return replace(self, images=tuple(own[image] for image in chosen))

    def take(self, place: Place) -> Tensor:
        self.require(place)
        tensor = self.tensors[str(place)]
        return tensor if self.images is None else tensor[list(self.images)]

    def save(self, file: Path | str) -> Path:
        """Writes all its images to one file, all at once or not at all; a kept pass that is there
        is named in a warning and replaced. Raises WriteError, CouplingError.

            source.save("source.safetensors")
            source = kept("source.safetensors")
        """
        path, facts = path_of(file), self.facts
        inputs = self.tensors.files if isinstance(self.tensors, _Stored) else ()
        with whole(path, is_kept, inputs=inputs) as part:
            write(part, dict(self.tensors), facts, path)
        return path


@dataclass(frozen=True)
class _Stored(Mapping[str, Tensor]):
    """The tensors of a pass on disk, each read when it is asked for; ``homes`` are the file and the
    checksum of each."""

    homes: Mapping[str, tuple[Path, str]]
    files: tuple[Path, ...]

    def __getitem__(self, name: str) -> Tensor:
        file, expected = self.homes[name]
        with opened(file, **_WHAT) as tensors:
            found: Tensor = tensors.get_tensor(name)
        if checksum(found) != expected:
            raise RecordError(f"{file} is damaged: the checksum of {name} does not fit it")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.homes

    def __iter__(self) -> Iterator[str]:
        return iter(self.homes)

    def __len__(self) -> int:
        return len(self.homes)


def kept(path: Path | str) -> KeptPass:
    """Opens a kept pass, a file or a folder. Tensors are read when an edit takes them.

    Raises RecordError if there is none, if it is damaged or a file is missing or foreign;
    SettingError for what is no path.
    """
    path = path_of(path)
    if path.is_dir() and not any(map(is_kept, path.iterdir())):
        raise RecordError(
            f"{path} is a folder that holds no kept pass; give one that keep(pipe, edit, to=...) "
            "wrote, or a file of source.save(...)"
        )
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = tuple(file for file in inside if not is_passing(file.name))
    headers = [_header(file) for file in files]
    homes = {name: (file, of) for file, (_, sums) in zip(files, headers, strict=True)
             for name, of in sums.items()}  # fmt: skip
    first = [said for said, _ in headers if said.facts is not None]
    if len(first) != 1 or any(said.run != first[0].run for said, _ in headers):
        raise RecordError(f"{path} is no kept pass: it does not hold the files of one pass")
    facts: Facts = first[0].facts
    steps = sorted(said.step for said, _ in headers if said.step is not None)
    if path.is_dir() and steps != list(range(facts.steps)):
        raise RecordError(f"{path} is no kept pass: it has the steps {steps} of {facts.steps}")
    return KeptPass(facts, _Stored(homes, files))


def _header(file: Path) -> tuple[Any, dict[str, str]]:
    """What a file says, and the checksums of its tensors. No tensor is read."""
    from attncontrol.maps import schema  # pydantic takes a third of a second

    with opened(file, **_WHAT) as tensors:
        about, names = tensors.metadata() or {}, set(tensors.keys())
    text = about.get(_ABOUT)
    if text is None:
        raise RecordError(f"{file} is not a kept pass; write one with {_WHAT['by']}")
    if about.get("attncontrol.checksum") != checksum_of(text):
        raise RecordError(f"{file} is damaged: the checksum of its header does not fit it")
    header = schema.parsed_kept(text, file)
    if odd := sorted(names ^ set(header.checksums)):
        raise RecordError(f"{file} is no kept pass: its header and tensors differ in {odd[0]}")
    return header, header.checksums


def write(
    part: Unfinished,
    tensors: dict[str, Tensor],
    facts: Facts | None,
    final: Path,
    *,
    run: str | None = None,
    step: int | None = None,
) -> None:
    """One file that will be named ``final``. Raises WriteError."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    said = {
        "schema": 1,
        "run": run or secrets.token_hex(8),
        "facts": None if facts is None else asdict(facts),
        "step": step,
        "checksums": {name: checksum(tensor) for name, tensor in tensors.items()},
    }
    text = json.dumps(said, allow_nan=False)
    try:
        save_file(tensors, part, {_ABOUT: text, "attncontrol.checksum": checksum_of(text)})
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while serializing: ")
        raise WriteError(f"{final} was not written: {reason}; all is as before") from error


@dataclass(eq=False)
class Steps:
    """The folder of one pass, which gets the tensors of every step as soon as it is complete."""

    folder: Path
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    def write(self, tensors: dict[str, Tensor], step: int) -> None:
        file = self.folder / f"step-{step:04}.safetensors"
        with whole(file) as part:
            write(part, tensors, None, file, run=self.run, step=step)

    def finish(self, facts: Facts) -> None:
        file = self.folder / "pass.safetensors"
        with whole(file) as part:
            write(part, {}, facts, file, run=self.run)


@contextmanager
def stepping(folder: Path) -> Iterator[Steps]:
    """A folder that takes its place when the block ends without an error; a kept pass that is there
    is replaced. Raises WriteError."""
    with whole(folder, holds_kept) as part:
        part.mkdir()
        yield Steps(part)


def is_kept(path: Path) -> bool:
    """Whether a file holds a kept pass or a step of one, whatever its state."""
    try:
        with safe_open(path, "np") as tensors:
            return _ABOUT in (tensors.metadata() or {})
    except (OSError, SafetensorError):
        return False


def holds_kept(folder: Path) -> bool:
    """Whether a folder holds a kept pass and nothing else."""
    return folder.is_dir() and all(map(is_kept, folder.iterdir()))
