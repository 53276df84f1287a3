"""What is asked of a run: by options, or by the ``run.json`` of an earlier one."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from attncontrol.batch.edit_names import AUTO, weaker_and_stronger
from attncontrol.batch.options import step_of
from attncontrol.errors import SettingError
from attncontrol.export.names import name_of, plain, record_of, sheet_of


def _once(values: list[Any]) -> list[Any]:
    if twice := [value for value, times in Counter(values).items() if times > 1]:
        raise SettingError(f"{twice[0]!r} is there twice")
    return values


def _step(text: str) -> str:
    step_of(text)
    return text


def _box(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    if not (box[0] < box[2] and box[1] < box[3]):
        raise SettingError(f"{list(box)} is no box: left < right and top < bottom")
    return box


Text = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"\S")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Step = Annotated[float, Field(gt=-1, lt=1)]
Scale = Annotated[float, Field(ge=0, le=1000)]
Box = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], AfterValidator(_box)]
Share = Annotated[str, Field(pattern="%$"), AfterValidator(_step)]
Pixels = Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
Seed = Annotated[int, Field(ge=0, lt=2**64)]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=1_000_000), AfterValidator(_once)]
Words = Annotated[list[Text], Field(min_length=1)]
Head = tuple[Text, Annotated[int, Field(ge=0)]]


class Call(TypedDict, total=False):
    """Of a pipeline."""

    # a TypedDict has annotations alone, and pydantic looks for this name
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[misc]

    num_inference_steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Scale
    true_cfg_scale: Scale
    negative_prompt: str
    max_sequence_length: Annotated[int, Field(ge=1)]
    height: Pixels
    width: Pixels
    clean_caption: bool
    use_resolution_binning: bool


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

    prompts: Annotated[list[Text], Field(min_length=1), AfterValidator(_once)]
    method: Text
    words: Annotated[list[Words], Field(min_length=1)] | None
    boxes: dict[Text, Box]
    step_size: Annotated[float, Field(ge=0)] | Share | None
    heads: Annotated[list[Head], Field(min_length=1), AfterValidator(_once)] | None
    heads_scale: Scale
    u: Fraction
    compare: bool
    batch: Annotated[int, Field(ge=1, le=10_000)]
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

    def records(self, unit: Unit) -> list[str]:  # noqa: ARG002  # as of an edit
        return []

    @property
    def order(self) -> list[str]:
        """All pictures."""
        wholes = [Unit(prompt, tuple(self.seeds)) for prompt in self.prompts]
        return [name for each in wholes for name in self.pictures(each)]


class PictureFile(Exact):
    """A picture that is read: where, and its bytes by their SHA-256."""

    file: Text
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Photograph(PictureFile):
    """A picture file that is edited, and how it is inverted."""

    inversion: Text = "exact"


class Editing(Settings):
    """Of ``attncontrol edit``. What is edited by ``regions``, by ``remove``, a word, or ``move``, a
    word and how far, has the name of that for its method. ``chosen`` says why ``auto`` chose a
    method. ``record`` are the words of both prompts whose maps are kept. ``photo`` is the source if
    that is not generated; it has one seed, which has no effect. ``mask`` is white where the picture
    may change."""

    prompt: Text
    to: Text
    method: Text
    compare: bool
    regions: dict[Text, Box] = Field(default_factory=dict)
    remove: Text | None = None
    move: tuple[Text, Step, Step] | None = None
    chosen: Text | None = None
    record: Words | None = None
    photo: Photograph | None = None
    mask: PictureFile | None = None

    @model_validator(mode="after")
    def _one_change(self) -> "Editing":
        given = {"regions": self.regions, "remove": self.remove, "move": self.move}
        named = [name for name, value in given.items() if value]
        if (named and named != [self.method]) or (self.method in given and not named):
            raise SettingError(f"method {self.method!r} with {' and '.join(named) or 'nothing'}")
        if self.move and self.move[1:] == (0, 0):
            raise SettingError("move by 0, 0 changes nothing")
        return self

    @property
    def word(self) -> str | None:
        """What is to be found in the source."""
        return self.remove or (self.move[0] if self.move else None)

    @property
    def roles(self) -> dict[str, str]:
        """What is made of every seed, and its prompt: the source, what is edited, and to compare
        the second prompt from the same seed, of a photo the edit at other strengths."""
        roles = {"source": self.prompt, plain(self.method): self.to}
        if self.photo:
            return roles | {plain(method): self.to for method in self.others}
        other = self.compare and self.to != self.prompt
        return roles | ({"plain": self.to} if other else {})

    @property
    def others(self) -> list[str]:
        """The method at half and twice its strength, to compare edits of a photo; of blend none
        beside a mask, which stands in its place."""
        named = self.method not in ("regions", "remove", "move", AUTO)
        masked = self.mask is not None and self.method.startswith("blend")
        if not (self.photo and self.compare and named) or masked:
            return []
        return weaker_and_stronger(self.method)

    @property
    def units(self) -> list[Unit]:
        return [Unit(self.to, seeds) for seeds in _parts(self.seeds, 4)]

    def pictures(self, unit: Unit) -> list[str]:
        """The files of a unit, in order."""
        roles = self.roles.items()
        return [name_of(prompt, role, seed) for role, prompt in roles for seed in unit.seeds]

    def sheets(self, unit: Unit) -> list[str]:
        return [sheet_of(self.to, "compare", unit.seeds)] if self.compare else []

    def records(self, unit: Unit) -> list[str]:
        """Of the source and the edited picture of every seed."""
        return [record_of(self.to, seed) for seed in unit.seeds] if self.record else []

    @property
    def order(self) -> list[str]:
        """All pictures."""
        return self.pictures(Unit(self.to, tuple(self.seeds)))


S = TypeVar("S", bound=Settings)


def asked(kind: type[S], **values: Any) -> S:
    """The settings that options say. Raises SettingError, naming the first that is wrong."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingError(first_wrong(error)) from error


def first_wrong(error: ValidationError) -> str:
    """Where, and what."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def _parts(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]
