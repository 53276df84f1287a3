"""One self-contained HTML page in which to look at a record, or at two side by side."""

import json
import math
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from attncontrol.checks.arguments import Such, checked
from attncontrol.errors import RecordError, SettingError
from attncontrol.inspector import payload
from attncontrol.inspector.quantise import text
from attncontrol.inspector.wording import entities, segments, shown_words
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
    same controls. Without it branches that read other words are shown side by side.

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
    shown = [part for each in given for part in _apart(each)[: 3 - len(given)]]
    titles = titles if len(shown) == len(given) else maps.branches
    records = [
        content(each, title, CELLS // len(shown))
        for each, title in zip(shown, titles[: len(shown)], strict=True)
    ]
    folder = files("attncontrol.inspector").joinpath("template")
    environment = Environment(
        loader=PackageLoader("attncontrol.inspector", "template"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        title=" · ".join(dict.fromkeys(prompt for each in shown for prompt in each.prompts)),
        style=folder.joinpath("style.css").read_text("utf-8"),
        imports=json.dumps({"imports": _modules(folder)}),
        records=records,
    )


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
    try:
        with file.open("rb") as stream:
            return b'<meta name="generator" content="attncontrol inspect">' in stream.read(1000)
    except OSError:
        return False


def _modules(folder: Any) -> dict[str, str]:
    """The scripts, by the names under which they import each other."""
    scripts = {
        file.name.removesuffix(".js"): file.read_text("utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".js")
    }
    return {
        f"inspector/{name}": _uri(source.encode(), "text/javascript")
        for name, source in sorted(scripts.items())
    }


def require_picture_maps(maps: AttentionMaps) -> None:
    if maps.direction != "image->text":
        raise RecordError(
            "the inspector shows attention from the picture to words, image->text; "
            f'this record is {maps.direction}. Record with direction="image->text"'
        )


def content(maps: AttentionMaps, title: str, cells: int) -> dict[str, Any]:
    """JSON of one record, with at most ``cells`` cells of maps."""
    words = [shown_words(maps, image, most=payload.WORDS) for image in range(len(maps.prompts))]
    axes = payload.axes_of(maps, [[word.index for word in of_image] for of_image in words])
    detail = payload.fit(axes, cells)
    images = [
        {
            "prompt": prompt,
            "words": [word.name for word in of_image],
            "segments": segments(prompt, of_image),
            "entities": entities(prompt, of_image),
            "picture": _picture(maps.ground(image)) if image < len(maps.pictures) else None,
        }
        for image, (prompt, of_image) in enumerate(zip(maps.prompts, words, strict=True))
    ]
    finest = max(axes.grids.values(), key=math.prod)
    left_out = max(
        len(spans) - len(of_image) for spans, of_image in zip(maps.spans, words, strict=True)
    )
    numbers = payload.numbers(maps, axes, detail)
    absent = _absent(numbers.pop("empty"))
    return numbers | {
        "title": title,
        "partial": maps.partial,
        "images": images,
        "branches": list(maps.branches),
        "frames": axes.frames,
        "steps": _steps(maps, axes, detail),
        "aspect": finest[1] / finest[0],
        "about": {
            str(key): _plain(value)
            for key, value in maps.about.items()
            if value not in (None, [], {})
        },
        "reduced": [*_before(maps, axes), *absent, *_reduced(axes, detail, left_out)],
    }


def _absent(steps: int) -> list[str]:
    """About steps in which layers did not run."""
    if not steps:
        return []
    return [
        f"Layers did not run in {steps} of their steps; means leave these out, "
        "and their own maps are empty."
    ]


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


def _before(maps: AttentionMaps, axes: payload.Axes) -> list[str]:
    """What the recording did."""
    said = [f"Recorded as: {', '.join(maps.reductions)}."] if maps.reductions else []
    missing = [
        axis
        for axis, gone in (
            ("step", axes.steps == 1 < len(maps.steps)),
            ("head", not axes.has_heads),
        )
        if gone
    ]
    if missing:
        means = " and ".join(f"{axis}s" for axis in missing)
        said.append(f"Means over {means}; record with keep={tuple(missing)} to see them apart.")
    return said


def _reduced(axes: payload.Axes, detail: payload.Detail, left_out: int) -> list[str]:
    """What the page does on top of that."""
    side = max(max(grid) for grid in axes.grids.values())
    said = [
        "8 bits per cell on a square-root scale: value = m (q / 255)², m the maximum of each map; "
        "off by less than 0.4 % of m."
    ]
    if side > detail.mean:
        said.append(
            f"Means over steps: grids of at most {detail.mean} cells per side (recorded: {side})."
        )
    if axes.steps > 1 and side > detail.step:
        said.append(
            f"Single steps: grids of at most {detail.step} cells per side (recorded: {side})."
        )
    if axes.steps > detail.steps:
        said.append(f"{axes.steps} steps are shown as {detail.steps} means of neighbours.")
    if axes.has_heads:
        over = "steps and frames" if axes.frames > 1 else "steps"
        small = (
            f", grids of at most {detail.head} cells per side (recorded: {side})"
            if side > detail.head
            else ""
        )
        said.append(
            f"Heads: means over {over}{small}. "
            "Entropy and top share are computed on the recorded grid."
        )
    if left_out:
        said.append(
            f"{left_out} text positions are left out: repeated special tokens and all after "
            f"{payload.WORDS} words."
        )
    return said


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
        "uri": _uri(data.getvalue(), "image/png" if lossless else "image/jpeg"),
        "width": size[0],
        "height": size[1],
    }


def _uri(data: bytes, media: str) -> str:
    return f"data:{media};base64,{text(data)}"
