"""The header of a record, checked: types, ranges, and what its fields say of each other."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from attncontrol.attention.between import Direction
from attncontrol.attention.sites import Site
from attncontrol.attention.source import Facts
from attncontrol.errors import RecordError
from attncontrol.maps.recording import Shape
from attncontrol.maps.taken import expected as expected_taken
from attncontrol.maps.taken import wrong_sources
from attncontrol.prompts.tokens import Span, Token

SCHEMA = 1
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "sqrt8": "U8"}
"""What an encoding is in safetensors."""
PICTURE = ("image", "branch", "step", "head", "height", "width", "token")
VIDEO = ("image", "branch", "step", "head", "frame", "height", "width", "token")

Name = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class Version(_Part):
    """Of the schema alone, whatever else there is."""

    version: int = Field(alias="schema", ge=1)


class Image(_Part):
    """One image: its prompt, its text sequence, and what the token axis holds."""

    prompt: str
    tokens: tuple[Token, ...]
    words: tuple[Span, ...]


class Header(_Part):
    """Of a file; ``store`` says what the fields are."""

    version: int = Field(alias="schema", ge=1)
    dims: tuple[str, ...]
    encoding: Literal["float32", "float16", "bfloat16", "sqrt8"]
    images: tuple[Image, ...] = Field(min_length=1)
    others: dict[str, tuple[Image, ...]] = Field(default_factory=dict)
    sites: tuple[Site, ...]
    branches: tuple[Name, ...] = Field(min_length=1)
    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    timesteps: tuple[float, ...]
    sigmas: tuple[Annotated[float, Field(ge=0)] | None, ...]
    direction: Direction
    reductions: tuple[str, ...]
    about: dict[str, JsonValue]
    checksums: dict[str, str] = Field(default_factory=dict)
    run: Name | None = None
    index: Annotated[int, Field(ge=0)] | None = None
    total: Annotated[int, Field(ge=1)] | None = None
    partial: str | None = None
    sources: tuple[int, ...] = ()


class KeptHeader(_Part):
    """Of a file of a kept pass; ``kept`` says what the fields are."""

    version: int = Field(alias="schema", ge=1)
    run: Name
    facts: Facts | None
    step: Annotated[int, Field(ge=0)] | None
    checksums: dict[str, str]


AnyHeader = TypeVar("AnyHeader")


def parsed_kept(text: str, file: Any) -> KeptHeader:
    """A header from JSON. Raises RecordError, which says which field of which file is wrong."""
    header = validated(KeptHeader, text, file, "kept pass")
    facts = header.facts
    if facts and not 0 < len(facts.prompts) == len(facts.tokens):
        raise RecordError(f"{file} is no kept pass: prompts and tokens of its header do not fit")
    return header


def parsed(text: str, file: Any) -> Header:
    """A header from JSON. Raises RecordError, which says which field of which file is wrong."""
    header = validated(Header, text, file, "attention record")
    if wrong := next(_wrong(header), None):
        raise RecordError(f"{file} is no attention record: its header has {wrong}")
    return header


def validated(kind: type[AnyHeader], text: str, file: Any, what: str) -> AnyHeader:
    """A header, a model or a dataclass, from JSON. Raises RecordError."""
    require_version(text, file)
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        raise RecordError(f"{file} is no {what}: {_first(error)}") from None


def require_version(text: str, file: Any) -> None:
    """Raises RecordError for a schema that this version does not read."""
    try:
        version = Version.model_validate_json(text).version
    except ValidationError as error:
        raise RecordError(f"{file} is no attention record: {_first(error)}") from None
    if version > SCHEMA:
        raise RecordError(
            f"{file} has schema {version}, this version reads {SCHEMA}: update attncontrol"
        )


def _first(error: ValidationError) -> str:
    """What is wrong first, in one line."""
    found = error.errors(include_url=False, include_context=False)[0]
    field = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in found["loc"])
    said = found["msg"][:1].lower() + found["msg"][1:]
    if not field:
        return f"its header: {said}"
    given = repr(found["input"])
    given = given if len(given) < 50 else f"{given[:46]} ..."
    missing = found["type"] == "missing"
    return f"{field[1:]} of its header: {said}" + ("" if missing else f", not {given}")


def _wrong(header: Header) -> Iterator[str]:
    """What the fields of a header say against each other."""
    if header.dims not in (PICTURE, VIDEO):
        yield f"dims {', '.join(header.dims)}; they are {', '.join(PICTURE)}, frame in videos"
    for name in ("timesteps", "sigmas"):
        if len(getattr(header, name)) != len(header.steps):
            yield f"{len(getattr(header, name))} {name} for {len(header.steps)} steps"
    if any(b <= a for a, b in zip(header.steps, header.steps[1:], strict=False)):
        yield "steps that do not rise"
    names = [site.name for site in header.sites]
    for what, several in (("branches", header.branches), ("sites", names)):
        if doubled := [each for each in several if several.count(each) > 1]:
            yield f"{what} that hold {doubled[0]!r} twice"
    for site in header.sites:
        if not site.name or min(site.heads, site.stride) < 1:
            yield f"a site {site.name!r} with {site.heads} heads and stride {site.stride}"
    if wrong := wrong_sources(header.sources, len(header.images)):
        yield wrong
    yield from _wrong_in_run(header)
    for branch, images in (("", header.images), *header.others.items()):
        if branch and (branch not in header.branches or len(images) not in (0, len(header.images))):
            yield f"{len(images)} images of the branch {branch!r} among others"
        for number, image in enumerate(images):
            at = f"others[{branch!r}][{number}]" if branch else f"images[{number}]"
            yield from (f"{at} with {wrong}" for wrong in _wrong_in_image(image))
    among_cells = header.direction == "image->image"
    if any(image.words for image in header.images) == among_cells:
        yield f"{'words' if among_cells else 'no words'} in images of {header.direction}"


def _wrong_in_run(header: Header) -> Iterator[str]:
    of_run = (header.run, header.index)
    if (of_run != (None, None) and None in of_run) or (header.total and header.run is None):
        yield "a run without an index, or an index without a run"
    elif header.index is not None and header.total not in (None, header.index + 1):
        yield f"index {header.index} of {header.total} steps; only the last file knows the total"
    if not header.sites and header.run is None:
        yield "no sites"
    if header.run is not None and len(header.steps) != 1:
        yield f"{len(header.steps)} steps; a file of a run holds one"


def _wrong_in_image(image: Image) -> Iterator[str]:
    known = {token.index for token in image.tokens}
    if len(known) != len(image.tokens) or min(known, default=0) < 0:
        yield "tokens whose index is negative or there twice"
    for token in image.tokens:
        if not 0 <= token.start <= token.end:
            yield f"a token {token.text!r} of the characters {token.start} to {token.end}"
    for word in image.words:
        if min(word.positions, default=0) < 0:
            yield f"a word {word.text!r} at the positions {word.positions}"
        elif known and not known.issuperset(word.positions):
            yield f"a word {word.text!r} at {word.positions}, where no token is"


def misfit(header: Header, kept: Mapping[str, tuple[str, Shape]]) -> str | None:
    """What the tensors of a file, by name (type, shape), have against its header."""
    return next(_misfits(header, kept), None)


def _misfits(header: Header, kept: Mapping[str, tuple[str, Shape]]) -> Iterator[str]:
    expected = expected_taken(kept, header)
    for site in header.sites:
        name = f"maps/{site.name}"
        dtype, shape = kept.get(name, ("", ()))
        if not dtype:
            yield f"it has no tensor {name}"
        elif dtype != DTYPES[header.encoding]:
            yield f"{name} is {dtype}, not {DTYPES[header.encoding]} as in {header.encoding!r}"
        elif wrong := _wrong_shape(header, site, shape):
            yield f"{name} has {wrong}"
        elif header.encoding == "sqrt8":
            scale = (*shape[:4], *(1 for _ in shape[4:-1]), shape[-1])
            expected[f"scale/{site.name}"] = ("F32", scale)
        expected[name] = dtype, shape
    if "pictures" in kept:
        dtype, shape = expected["pictures"] = kept["pictures"]
        if wrong := wrong_pictures(dtype, shape, len(header.images)):
            yield wrong
    for name, of in expected.items():
        if kept.get(name) != of:
            yield f"{name} is {kept.get(name, 'not there')}, not {of}"
    if unknown := sorted(set(kept) - set(expected)):
        yield f"its header does not know the tensor {unknown[0]}"
    if header.checksums and (without := sorted(set(kept) ^ set(header.checksums))):
        yield f"its header has checksums of other tensors; see {without[0]}"


def _wrong_shape(header: Header, site: Site, shape: Shape) -> str | None:
    if len(shape) != len(header.dims):
        return f"{len(shape)} axes, not {len(header.dims)}"
    at = dict(zip(header.dims, shape, strict=True))
    texts = (header.images, *header.others.values())
    words = max(len(image.words) for images in texts for image in images)
    cells = at["height"] * at["width"] * at.get("frame", 1)
    allowed = {
        "image": {len(header.images)},
        "branch": {len(header.branches)},
        "step": {len(header.steps)} if header.run else {len(header.steps), 1},
        "head": {1, site.heads},
        "token": {cells if header.direction == "image->image" else words},
    }
    for axis, length in at.items():
        if length not in allowed.get(axis, {length}) or length < 1:
            wanted = " or ".join(map(str, sorted(allowed.get(axis, {1}))))
            return f"{length} along {axis}, not {wanted}"
    return None


def wrong_pictures(dtype: str, shape: Shape, count: int) -> str | None:
    fits = len(shape) == 4 and (shape[0], shape[3]) == (count, 3) and min(shape) > 0
    if dtype == "U8" and fits:
        return None
    return f"pictures are {dtype} {shape}, not U8 ({count}, height, width, 3)"
