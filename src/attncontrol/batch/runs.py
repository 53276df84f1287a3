"""``run.json``: what was asked of a run, what it has made, and with which versions. It is written
before the first picture and kept true; what is read is checked whole."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from attncontrol.errors import ResultsError, SettingError
from attncontrol.export.names import name_of, readable, sheet_of
from attncontrol.writing import put

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=8, multiple_of=8)]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**64)]], Field(min_length=1)]


class Call(TypedDict, total=False):
    """Of a pipeline."""

    # a TypedDict has annotations alone, and pydantic looks for this name
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[misc]

    num_inference_steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: float
    true_cfg_scale: float
    negative_prompt: str
    max_sequence_length: Annotated[int, Field(ge=1)]
    height: Pixels
    width: Pixels


class Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Unit(NamedTuple):
    """What is made and written together."""

    prompt: str
    seeds: tuple[int, ...]


class Settings(Exact):
    """What was asked. ``scheduler`` is known when the pipeline is there."""

    model: Text
    device: str
    dtype: Literal["float32", "float16", "bfloat16"]
    seeds: Seeds
    call: Call
    scheduler: dict[str, Any] | None = None


class Generation(Settings):
    """Of ``attncontrol generate``. ``parameters`` are those of the method: its descent and its own
    numbers."""

    prompts: Annotated[list[Text], Field(min_length=1)]
    method: Text
    words: list[list[Text]] | None
    boxes: dict[Text, tuple[Fraction, Fraction, Fraction, Fraction]]
    step_size: Annotated[float, Field(ge=0)] | None
    heads: list[tuple[Text, Annotated[int, Field(ge=0)]]] | None
    heads_scale: float
    u: Fraction
    compare: bool
    batch: Annotated[int, Field(ge=1)]
    parameters: dict[str, Any] | None = None

    @property
    def arms(self) -> list[str]:
        """What is made of every prompt and seed: plain, guided, or both."""
        parts = [self.method] if self.method != "plain" else []
        guided = "+".join([*parts, "heads"] if self.heads else parts) or "plain"
        return ["plain", guided] if self.compare and guided != "plain" else [guided]

    @property
    def units(self) -> list[Unit]:
        return [Unit(p, seeds) for p in self.prompts for seeds in _parts(self.seeds, self.batch)]

    def pictures(self, unit: Unit) -> list[str]:
        """The files of a unit, in order."""
        return [name_of(unit.prompt, arm, seed) for arm in self.arms for seed in unit.seeds]

    def sheets(self, unit: Unit) -> list[str]:
        arms = self.arms
        kinds = [*(f"{arm}.maps" for arm in arms), *(["compare"] if len(arms) > 1 else [])]
        return [sheet_of(unit.prompt, kind, unit.seeds) for kind in kinds]

    @property
    def order(self) -> list[str]:
        """All pictures."""
        wholes = [Unit(prompt, tuple(self.seeds)) for prompt in self.prompts]
        return [name for each in wholes for name in self.pictures(each)]


class Editing(Settings):
    """Of ``attncontrol edit``."""

    prompt: Text
    to: Text
    method: Text
    compare: bool

    @property
    def roles(self) -> dict[str, str]:
        """What is made of every seed, and its prompt."""
        roles = {"source": self.prompt, self.method: self.to}
        return roles | ({"plain": self.to} if self.compare else {})

    @property
    def units(self) -> list[Unit]:
        return [Unit(self.to, seeds) for seeds in _parts(self.seeds, 4)]

    def pictures(self, unit: Unit) -> list[str]:
        """The files of a unit, in order."""
        roles = self.roles.items()
        return [name_of(prompt, role, seed) for role, prompt in roles for seed in unit.seeds]

    def sheets(self, unit: Unit) -> list[str]:
        return [sheet_of(self.to, "compare", unit.seeds)] if self.compare else []

    @property
    def order(self) -> list[str]:
        """All pictures."""
        return self.pictures(Unit(self.to, tuple(self.seeds)))


class Picture(Exact):
    """One that was made. ``sha256`` is that of its file and of the sheets it is on, by name."""

    prompt: Text
    seed: int
    file: str
    compare_file: str | None
    sha256: dict[str, str]
    seconds: float

    def is_whole(self, out: Path) -> bool:
        return all(_digest(out / name) == digest for name, digest in self.sha256.items())


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
    """``command`` is what was typed; ``complete``: nothing is left to be made."""

    command: str
    settings: Generation | Editing
    versions: dict[str, str]
    pictures: Sequence[Picture] = ()
    failed: Sequence[Failure] = ()
    complete: bool = False

    @property
    def folder(self) -> Path:
        """Where it is written unless the user says so: another one for other settings."""
        late = {"scheduler", "parameters"}
        asked = self.settings.model_dump_json(exclude=late) + repr(sorted(self.versions.items()))
        mark = hashlib.sha256(asked.encode()).hexdigest()[:8]
        return Path("attncontrol-out") / f"{readable(self.settings.units[0].prompt)}-{mark}"

    def write(self, out: Path) -> None:
        put(out / "run.json", self.model_dump_json(indent=1).encode())


class GenerationRun(Run):
    """``words``: of every prompt, those whose maps are drawn."""

    settings: Generation
    words: dict[str, list[str]]
    pictures: Sequence[Generated] = ()


class EditingRun(Run):
    settings: Editing
    pictures: Sequence[Edited] = ()


R = TypeVar("R", bound=Run)
S = TypeVar("S", bound=Settings)
_KINDS = {GenerationRun: "generate", EditingRun: "edit"}


def asked(kind: type[S], **values: Any) -> S:
    """The settings that options say. Raises SettingError, naming the first that is wrong."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingError(_first(error)) from error


def load_run(file: Path, kind: type[R]) -> R:
    """Raises ResultsError for a file that is no ``run.json`` of this kind, naming what is wrong."""
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes(), strict=True)
    except OSError as error:
        raise ResultsError(f"{file} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ResultsError(
            f"{file} is no run.json of attncontrol {_KINDS[kind]}: {_first(error)}"
        ) from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def _parts(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
