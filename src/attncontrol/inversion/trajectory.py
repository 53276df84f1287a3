"""The way of pictures to noise, as a value and as a file.

The file is one of safetensors with the tensors ``latents``, ``pictures`` and, of methods that have
them, ``embeddings``, ``nouns`` and ``places``. The metadata entry ``attncontrol.trajectory`` is
JSON: ``schema`` 1, ``course`` (see ``Course``) and ``checksums`` of the tensors.
"""

import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from attncontrol.attention.source import Facts
from attncontrol.errors import RecordError, SettingError, WriteError
from attncontrol.inversion._method import Inversion, Learned
from attncontrol.inversion._schedule import Schedule
from attncontrol.maps.opened import checksum, checksum_of, opened, path_of
from attncontrol.writing import Unfinished, whole

_ABOUT = "attncontrol.trajectory"
_WHAT = {"what": "a trajectory", "by": "trajectory.save(...)"}


@dataclass(frozen=True)
class Course:
    """What run a trajectory is of. ``method`` and its ``settings``; ``guidance_scale`` of the
    inversion; ``photo`` is the checksum of the pictures."""

    facts: Facts
    schedule: Schedule
    guidance_scale: float
    method: str
    settings: dict[str, float | int | tuple[str, ...] | None]
    photo: str


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """Latents of pictures at every step of a run, for ``retrace``.

        trajectory = invert(pipe, photo, "a red cat and a frog")
        trajectory.save("cat.safetensors")
        trajectory = Trajectory.load("cat.safetensors")

    ``latents`` [picture step + 1 ...] begin with the most noise and end with the encoded pictures,
    in the scheduler's units. ``shown`` [picture height width 3] uint8 is what the model was shown.
    ``embeddings`` [picture step position channel] are those of the unconditional branch where the
    method optimises them, in half precision; ``nouns`` and ``places`` are as in ``DynamicPrompt``.
    ``trajectory[1]`` is that of one picture.
    """

    latents: Tensor
    shown: Tensor
    course: Course
    embeddings: Tensor | None = None
    nouns: Tensor | None = None
    places: Tensor | None = None

    def __repr__(self) -> str:
        height, width = self.size
        return (
            f"Trajectory({len(self)} pictures of {height} x {width}, {self.course.facts.steps} "
            f"steps, {self.method}, {self.nbytes / 2**20:.1f} MiB)"
        )

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, pictures: SupportsIndex | Iterable[SupportsIndex]) -> "Trajectory":
        named = list(pictures) if isinstance(pictures, Iterable) else [pictures]
        known = range(len(self))
        if not named or any(isinstance(at, bool) or at not in known for at in named):
            raise IndexError(f"there is no picture {pictures} among the {len(self)}")
        chosen = [operator.index(picture) for picture in named]
        facts = self.course.facts
        prompts = tuple(facts.prompts[picture] for picture in chosen)
        facts = replace(facts, prompts=prompts, tokens=tuple(facts.tokens[i] for i in chosen))
        shown, course = self.shown[chosen], replace(self.course, facts=facts)
        learned = self.learned and self.learned.of(chosen)
        return Trajectory(self.latents[chosen], shown, course).with_learned(learned)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures in pixels."""
        return self.shown.shape[1], self.shown.shape[2]

    @property
    def prompts(self) -> tuple[str | None, ...]:
        return self.course.facts.prompts

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """What the model was shown."""
        return tuple(map(Image.fromarray, self.shown.numpy()))

    @cached_property
    def method(self) -> Inversion:
        return _method(self.course)

    @property
    def learned(self) -> Learned | None:
        """What its method optimises."""
        if self.embeddings is None:
            return None
        return Learned(self.embeddings, self.nouns, self.places)

    def with_learned(self, learned: Learned | None) -> "Trajectory":
        return self if learned is None else replace(self, **learned.on("cpu")._asdict())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors.values())

    @property
    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"latents": self.latents, "pictures": self.shown, "embeddings": self.embeddings}
        tensors |= {"nouns": self.nouns, "places": self.places}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def save(self, file: Path | str) -> Path:
        """Writes one file, whole or not at all; a trajectory that is there is named in a warning
        and replaced. Raises WriteError."""
        path = path_of(file)
        self.put(path, is_trajectory)
        return path

    def put(self, file: Path, ours: Callable[[Path], bool] | None = None) -> None:
        """As ``save``; without ``ours`` what is there is known to be an earlier state of it."""
        with whole(file, ours) as part:
            write(part, self._tensors, self.course, file)

    @property
    def complete(self) -> bool:
        """Whether all that its method optimises is there."""
        return not self.method.gradients or self.optimised == self.course.facts.steps

    @property
    def optimised(self) -> int:
        """Of how many steps the embeddings are there."""
        return 0 if self.embeddings is None else self.embeddings.shape[1]

    @classmethod
    def load(cls, file: Path | str) -> "Trajectory":
        """Raises RecordError for what is none, or is damaged."""
        from attncontrol.maps import schema  # pydantic takes a third of a second

        path = path_of(file)
        with opened(path, **_WHAT) as stored:
            about = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        text = about.get(_ABOUT)
        if text is None:
            raise RecordError(f"{path} is not a trajectory; write one with {_WHAT['by']}")
        sums = {name: checksum(tensor) for name, tensor in tensors.items()}
        if about.get("attncontrol.checksum") != checksum_of(text):
            raise RecordError(f"{path} is damaged: the checksum of its header does not fit it")
        header = schema.validated(_Header, text, path, "trajectory")
        if header.checksums != sums or not {"latents", "pictures"} <= tensors.keys():
            raise RecordError(f"{path} is damaged: the checksums of its tensors do not fit it")
        course: Course = header.course
        if wrong := _misfit(course, tensors):
            raise RecordError(f"{path} is no trajectory of this version: {wrong}")
        learned = {name: tensors.get(name) for name in Learned._fields}
        return cls(tensors["latents"], tensors["pictures"], course, **learned)


@dataclass(frozen=True)
class _Header:
    schema: int
    course: Course
    checksums: dict[str, str]


def _method(course: Course) -> Inversion:
    """Raises AttributeError, TypeError and SettingError for what is no method."""
    from attncontrol import inversion

    made = getattr(inversion, course.method)(**course.settings)
    if not isinstance(made, Inversion):
        raise SettingError(f"{course.method} is no method of inversion")
    return made


def _misfit(course: Course, tensors: dict[str, Tensor]) -> str | None:
    """What of a file contradicts itself."""
    try:
        _method(course)
    except (AttributeError, TypeError, SettingError) as error:
        return f"its method is {course.method} with {course.settings} ({error})"
    latents, pictures = tensors["latents"], tensors["pictures"]
    embeddings = tensors.get("embeddings")
    count, steps = len(course.facts.prompts), course.facts.steps
    whole = (
        latents.shape[:2] == (count, steps + 1)
        and len(course.schedule.updates) == steps
        and pictures.ndim == 4
        and (len(pictures), pictures.shape[3], pictures.dtype) == (count, 3, torch.uint8)
        and (embeddings is None or (embeddings.ndim == 4 and len(embeddings) == count))
        and _nouns_fit(tensors, count)
    )
    return None if whole else f"its tensors are not those of {count} pictures and {steps} steps"


def _nouns_fit(tensors: dict[str, Tensor], count: int) -> bool:
    if not {"nouns", "places"} & tensors.keys():
        return True
    if not {"nouns", "places", "embeddings"} <= tensors.keys():
        return False
    nouns, places, embeddings = (tensors[name] for name in ("nouns", "places", "embeddings"))
    whole = nouns.ndim == 4 and nouns.shape[:2] == embeddings.shape[:2]
    return whole and places.shape == (count, nouns.shape[2]) and places.dtype == torch.int64


def write(part: Unfinished, tensors: dict[str, Tensor], course: Course, final: Path) -> None:
    """One file that will be named ``final``. Raises WriteError."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    checksums = {name: checksum(tensor) for name, tensor in tensors.items()}
    text = json.dumps(asdict(_Header(1, course, checksums)), allow_nan=False)
    try:
        save_file(tensors, part, {_ABOUT: text, "attncontrol.checksum": checksum_of(text)})
    except SafetensorError as error:
        raise WriteError(f"{final} was not written: {error}; all is as before") from error


def begun_in(file: Path | None, course: Course) -> Learned | None:
    """What a file of the same course has learned; None if there is none."""
    if file is None or not file.exists() or not is_trajectory(file):
        return None
    before = Trajectory.load(file)
    return before.learned if before.course == course else None


def is_trajectory(path: Path) -> bool:
    """Whether a file holds a trajectory, whatever its state."""
    try:
        with safe_open(path, "np") as tensors:
            about: dict[str, Any] = tensors.metadata() or {}
            return _ABOUT in about
    except (OSError, SafetensorError):
        return False
