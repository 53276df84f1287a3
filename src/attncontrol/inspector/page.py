"""One self-contained HTML page in which to look at a record, or at two side by side."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from attncontrol.checks.arguments import Such, checked
from attncontrol.errors import RecordError, SettingError
from attncontrol.inspector import payload, reductions
from attncontrol.inspector.pairs import CHANGE, Names, Pair, pair_of, renamed, taken_over
from attncontrol.inspector.selfcontained import is_made, rendered, scripts_of, uri
from attncontrol.inspector.wording import Shown, entities, segments, shown_words
from attncontrol.maps.images import seeds_of
from attncontrol.maps.recorded import AttentionMaps

CELLS = 3_500_000
"""Cells of all records of a page, one byte each before they are compressed."""
_SIDE = 768
Titles = Annotated[Sequence[str], Such("a title for each record", len)]


@checked
def page(
    maps: AttentionMaps,
    other: AttentionMaps | None = None,
    *,
    titles: Titles = ("first", "second"),
) -> str:
    """HTML that needs neither network nor server. ``other`` is shown beside ``maps``, under the
    same controls. Without it the sources and the edits of a record are shown side by side, or
    branches that read other words.

    Maps are stored with 8 bits, value = m (q / 255)^2, m the maximum of each map; grids, steps and
    words are reduced until they fit, and the page says how. Raises SizeError; RecordError for
    records of another direction than image->text, CouplingError before a recording ends,
    NonFiniteError for maps of which a part is NaN.
    """
    given = [maps] if other is None else [maps, other]
    if len(titles) < len(given):
        raise SettingError(f"titles={titles!r}: each of the {len(given)} records has one")
    for each in given:
        require_picture_maps(each)
    pair = pair_of(_apart(maps)[0]) if other is None else None
    records = _pair(pair) if pair else _alone(given, titles)
    return rendered(
        "attncontrol.inspector",
        scripts=scripts_of("attncontrol.inspector"),
        title=" · ".join(
            dict.fromkeys(image["prompt"] for each in records for image in each["images"])
        ),
        records=records,
    )


def _alone(given: Sequence[AttentionMaps], titles: Sequence[str]) -> list[dict[str, Any]]:
    shown = [part for each in given for part in _apart(each)[: 3 - len(given)]]
    titles = titles if len(shown) == len(given) else given[0].branches
    return [
        content(each, title, CELLS // len(shown))
        for each, title in zip(shown, titles[: len(shown)], strict=True)
    ]


def _pair(pair: Pair) -> list[dict[str, Any]]:
    """The sources and the edits."""
    return [
        content(maps, title, CELLS // 2, pair.names(side)) | {"role": title}
        for side, (title, maps) in enumerate(zip(("source", "edited"), pair.sides, strict=True))
    ]


def _apart(maps: AttentionMaps) -> list[AttentionMaps]:
    """By branch, where these have other words than the first."""
    names = [tuple(span.text for span in of) for of in maps.spans]
    same = all(
        [tuple(span.text for span in of) for of in text.spans] == names
        for text in maps.others.values()
    )
    return [maps] if same else [maps.of(branch) for branch in maps.branches]


def is_page(file: Path) -> bool:
    """Whether it was written here."""
    return is_made(file, "attncontrol inspect")


def require_picture_maps(maps: AttentionMaps) -> None:
    if maps.direction != "image->text":
        raise RecordError(
            "the inspector shows attention from the picture to words, image->text; "
            f'this record is {maps.direction}. Record with direction="image->text"'
        )


def content(
    maps: AttentionMaps, title: str, cells: int, names: Sequence[Names] | None = None
) -> dict[str, Any]:
    """JSON of one record, with at most ``cells`` cells of maps; ``names`` are those of words on the
    page, for every image, where they are others."""
    words = [shown_words(maps, image, most=payload.WORDS) for image in range(len(maps.prompts))]
    if names is not None:
        words = [renamed(of_image, of) for of_image, of in zip(words, names, strict=True)]
    axes = payload.axes_of(maps, [[word.index for word in of_image] for of_image in words])
    detail = payload.fit(axes, cells)
    finest = max(axes.grids.values(), key=math.prod)
    left_out = max(
        len(spans) - len(of_image) for spans, of_image in zip(maps.spans, words, strict=True)
    )
    numbers = payload.numbers(maps, axes, detail)
    absent = reductions.absent(numbers.pop("empty"))
    return numbers | {
        "title": title,
        "role": None,
        "taken": None if names is None else taken_over(maps, axes, detail),
        "partial": maps.partial,
        "images": [_image(maps, image, of_image) for image, of_image in enumerate(words)],
        "branches": list(maps.branches),
        "frames": axes.frames,
        "steps": _steps(maps, axes, detail),
        "aspect": finest[1] / finest[0],
        "about": {
            str(key): _plain(value)
            for key, value in maps.about.items()
            if value not in (None, [], {})
        },
        "reduced": [
            *reductions.before(maps, axes),
            *absent,
            *reductions.reduced(axes, detail, left_out),
        ],
    }


def _image(maps: AttentionMaps, image: int, words: tuple[Shown, ...]) -> dict[str, Any]:
    prompt, seeds = maps.prompts[image], seeds_of(maps)
    seed = str(seeds[image]) if seeds else None  # numbers of JavaScript are too short for some
    return {
        "prompt": prompt,
        "words": [word.name for word in words],
        "segments": segments(prompt, words),
        "entities": entities(prompt, words),
        "changed": [word.name for word in words if CHANGE in word.name],
        "seed": seed,
        "picture": _picture(maps.ground(image)) if image < len(maps.pictures) else None,
    }


def _steps(maps: AttentionMaps, axes: payload.Axes, detail: payload.Detail) -> list[dict[str, Any]]:
    """The recorded steps that are shown as one, with the timestep and the noise of the first. Empty
    if they are not kept."""
    if axes.steps == 1:
        return []
    return [
        {
            "first": maps.steps[part[0]],
            "last": maps.steps[part[-1]],
            "timestep": _finite(maps.timesteps[part[0]]),
            "sigma": _finite(maps.sigmas[part[0]]),
        }
        for part in payload.bins(axes.steps, detail.steps)
    ]


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _picture(picture: Any) -> dict[str, Any]:
    """PNG of small pictures, JPEG of large ones, reduced to 768 pixels."""
    small: Image.Image = picture.convert("RGB")
    size = small.size
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    data = BytesIO()
    lossless = max(small.size) <= 256
    small.save(data, "PNG" if lossless else "JPEG", **({} if lossless else {"quality": 90}))
    return {
        "uri": uri(data.getvalue(), "image/png" if lossless else "image/jpeg"),
        "width": size[0],
        "height": size[1],
    }
