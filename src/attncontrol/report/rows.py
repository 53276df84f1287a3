"""Pictures of a job as the page and the tables show them: small, and with their scores."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from attncontrol.jobs.keeping import pixels_of
from attncontrol.jobs.made import Made
from attncontrol.report.arms import Arm, arms_of
from attncontrol.scores.kept import Kept
from attncontrol.scores.score import Score

_CHUNK = 64  # pictures that are open at once
SIDES = ((4_000, 128), (10_000, 96), (20_000, 64))
"""Up to how many pictures, which longest side of the small ones: they are all in the page."""


@dataclass(frozen=True)
class Row:
    """A picture. ``small`` is a WebP, None if it failed or cannot be read, for ``error``."""

    made: Made
    arm: Arm
    small: bytes | None = field(default=None, repr=False)
    size: tuple[int, int] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


def rows_of(
    folder: Path,
    made: Sequence[Made],
    scores: Mapping[str, Score] | Kept,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, _: items,
) -> list[Row]:
    """In the order of the job. Pictures are read a few at a time, each once, and scored where
    ``Kept`` does not know what a score says."""
    kept = scores if isinstance(scores, Kept) else Kept.nowhere(scores)
    arms = arms_of([each.item for each in made])
    side = next((side for most, side in SIDES if len(made) <= most), SIDES[-1][1])
    pairs = list(zip(made, arms, strict=True))
    chunks = [pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK)]
    return [
        row for chunk in progress(chunks, "pictures") for row in _rows(folder, chunk, kept, side)
    ]


def inside(file: str | None) -> PurePosixPath | None:
    """A path that an index names, if it stays in the folder of the job."""
    path = PurePosixPath(file or "..")
    safe = not path.is_absolute() and ".." not in path.parts and path.parts
    return path if safe and "\\" not in str(path) and ":" not in path.parts[0] else None


def _rows(folder: Path, chunk: Sequence[tuple[Made, Arm]], kept: Kept, side: int) -> list[Row]:
    opened = [_opened(folder, made) for made, _ in chunk]
    places = [k for k, each in enumerate(opened) if isinstance(each, Image.Image)]
    pictures: list[Any] = [opened[k] for k in places]
    shown = [chunk[k][0] for k in places]
    values = {
        name: dict(zip(places, kept.values(name, pictures, shown), strict=True))
        for name in kept.scores
        if pictures
    }
    rows = []
    for k, ((made, arm), each) in enumerate(zip(chunk, opened, strict=True)):
        if isinstance(each, str):
            rows.append(Row(made, arm, error=each))
        else:
            numbers = {name: of[k] for name, of in values.items()}
            rows.append(Row(made, arm, _small(each, side), each.size, numbers))
    return rows


def _opened(folder: Path, made: Made) -> Image.Image | str:
    """The picture, or why there is none."""
    if made.error is not None:
        return made.error
    path = inside(made.file)
    if path is None:
        return f"the index names {made.file!r}, which is no file of this folder"
    try:
        with Image.open(folder / path) as picture:
            if pixels_of(picture) != made.pixels:
                return f"{path} is not the picture that was made; batch --verify makes it again"
            return picture.convert("RGB")
    except FileNotFoundError:
        return f"{path} is not there any more"
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError,
            Image.DecompressionBombError) as error:  # fmt: skip
        return f"{path} cannot be read: {str(error).splitlines()[0]}"


def _small(picture: Image.Image, side: int) -> bytes:
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    data = io.BytesIO()
    small.save(data, "WEBP", quality=78, method=2)
    return data.getvalue()
