"""``load``: records from disk, a file or the files of one run in a folder."""

import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from attncontrol.attention.sites import Site
from attncontrol.checks.arguments import Bytes, Unchecked, brief, checked, in_bytes
from attncontrol.errors import RecordError, SizeError
from attncontrol.maps.opened import Part, path_of, read, read_pictures
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.recording import BranchText, Shape, Unread
from attncontrol.maps.taken import joined

PICTURES = "pictures.safetensors"
STEP = r"step-\d{4,}\.safetensors"


@checked
def load(
    path: Annotated[Path | str, Unchecked],
    *,
    limit: Bytes = 4.0 * 2**30,
) -> AttentionMaps:
    """Opens a record, a file or a folder of steps. Maps are read when they are looked at.

    What a killed run left in its folder is read with a warning, and ``partial`` says so. Raises
    RecordError if there is no record, if it has a newer schema, if a file is damaged or does not
    fit its header (also when its maps are read), and if the steps of a folder are not those of one
    run from the first one on; SizeError, before any map is read, if there are more than ``limit``
    bytes of them (float32; ``math.inf`` for records of which few layers are looked at);
    SettingError for what is no path.

        maps = load("run.safetensors")
        maps["cat"]  # [image height width]
    """
    path = path_of(path)
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name that is too long
        raise RecordError(f"{brief(path)} is not an attention record ({error.strerror})") from error
    parts = parts_in(path) if is_folder else (read(path),)
    first = parts[0].header
    sites = {site.name: site for part in parts for site in part.header.sites}
    if not sites:
        raise RecordError(f"{path} holds no maps: none of its sites ran in the recorded steps")
    partial = _missing(parts, is_folder)
    if partial and is_folder:
        warnings.warn(f"{path} is partial: {partial}", stacklevel=3)
    layers = Stored(parts, tuple(sites))
    _require_room(path, layers, limit)
    pictures = parts[-1].pictures()
    if is_folder and first.run is None:
        pictures = read_pictures(path / PICTURES, len(first.images))
    return AttentionMaps(
        layers=layers,
        sites=sites,
        **vars(_text(first.images)),
        others={name: _text(of) for part in parts for name, of in part.header.others.items()},
        branches=first.branches,
        steps=tuple(step for part in parts for step in part.header.steps),
        timesteps=tuple(t for part in parts for t in part.header.timesteps),
        sigmas=tuple(sigma for part in parts for sigma in part.header.sigmas),
        direction=first.direction,
        reductions=first.reductions,
        about=_about(parts, sites),
        partial=partial,
        taken=joined([(part.header.sources, part.taken()) for part in parts]),
        pictures=pictures,
    )


def _require_room(path: Path, layers: "Stored", limit: float) -> None:
    """Raises SizeError if maps and pictures hold more bytes."""
    seen = [part.tensors["pictures"].shape for part in layers.parts if "pictures" in part.tensors]
    size = 4 * sum(map(math.prod, layers.shapes.values())) + sum(map(math.prod, seen))
    if size > limit:
        raise SizeError(
            f"{path} holds {in_bytes(size)}, more than limit={in_bytes(limit)}: raise limit=... "
            "(--limit), or record fewer steps, layers or heads"
        )


def _text(images: Sequence[Any]) -> BranchText:
    return BranchText(
        tuple(image.prompt for image in images),
        tuple(image.tokens for image in images),
        tuple(image.words for image in images),
    )


@dataclass(frozen=True)
class Stored(Unread):
    """The layers of a record on disk, each read when asked for."""

    parts: tuple[Part, ...]
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        steps = [part.layer(name) if part.shape(name) else None for part in self.parts]
        ran = next(step for step in steps if step is not None)
        absent = torch.full_like(ran, torch.nan)
        return torch.cat([absent if step is None else step for step in steps], 2)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(part.file for part in self.parts)

    @property
    def shapes(self) -> dict[str, Shape]:
        first = {
            name: next(shape for part in self.parts if (shape := part.shape(name)))
            for name in self.names
        }
        if len(self.parts) == 1:
            return first
        return {name: (*shape[:2], len(self.parts), *shape[3:]) for name, shape in first.items()}


def parts_in(folder: Path) -> tuple[Part, ...]:
    """The steps of a folder in order. Raises RecordError if they are not of one run."""
    try:
        names = [name for each in folder.iterdir() if re.fullmatch(STEP, name := each.name)]
    except OSError as error:
        raise RecordError(f"{folder} cannot be read ({error.strerror})") from error
    if not names:
        raise RecordError(
            f"{folder} holds no attention record: there is no step-*.safetensors in it"
        )
    parts = sorted((read(folder / name) for name in names), key=lambda part: part.header.steps)
    for part in parts:
        _require_agreement(part, parts[0])
    _require_same_sites(parts)
    if parts[0].header.run is not None:
        _require_sequence(parts)
    return tuple(parts)


def step_file(step: int) -> str:
    return f"step-{step:04}.safetensors"


def _require_agreement(part: Part, first: Part) -> None:
    """Raises RecordError for a file of another run, or of another step than its name says."""
    header = part.header
    if len(header.steps) != 1 or part.file.name != step_file(header.steps[0]):
        steps = ", ".join(map(str, header.steps))
        raise RecordError(f"{part.file} holds step {steps}, not the one that its name says")
    if header.run != first.header.run:
        raise RecordError(
            f"{part.file} is of another run than {first.file.name}: keep the files of one run"
        )
    names = ("dims", "encoding", "images", "branches", "direction", "reductions", "sources")
    compared = names if header.sites and first.header.sites else names[1:]
    for name in compared:
        if getattr(header, name) != getattr(first.header, name):
            raise RecordError(f"{part.file} has other {name} than {first.file.name}")


def _require_same_sites(parts: Sequence[Part]) -> None:
    """Raises RecordError for a layer that is not the same in all files."""
    known: dict[str, tuple[Site, Shape | None]] = {}
    for part in parts:
        for site in part.header.sites:
            found = site, part.shape(site.name)
            if known.setdefault(site.name, found) != found:
                raise RecordError(f"{part.file} has {site.name} otherwise than the steps before")


def _require_sequence(parts: Sequence[Part]) -> None:
    """Raises RecordError for a step that is missing or there twice."""
    for expected, part in enumerate(parts):
        index, total = part.header.index, part.header.total
        if index != expected:
            raise RecordError(
                f"{part.file} is recorded step {index} of its run, but {expected} are before it: "
                f"{'a step is missing' if (index or 0) > expected else 'a step is there twice'}"
            )
        if total is not None and part is not parts[-1]:
            raise RecordError(f"{part.file} is the last step of its run, but others follow it")


def _missing(parts: Sequence[Part], is_folder: bool) -> str | None:
    last = parts[-1].header
    if last.run is None:
        unknown = "its files, of version 0.2.0, do not say how many steps there were"
        return unknown if is_folder else last.partial
    if last.total == len(parts):
        return None
    step = last.steps[-1]
    return f"the run was stopped after step {step}" if is_folder else f"step {step} of a run alone"


def _about(parts: Sequence[Part], ran: Collection[str]) -> Mapping[str, Any]:
    """What the first file says; a site did not run if it did in no step."""
    about = parts[0].header.about
    names = [name for part in parts for name in _listed(part.header.about.get("not_run"))]
    absent = [name for name in dict.fromkeys(names) if name not in ran]
    return {**about, "not_run": absent} if "not_run" in about else about


def _listed(value: Any) -> list[Any]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
