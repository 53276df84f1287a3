"""One self-contained HTML page about a job: all pictures, small, with scores and settings."""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from attncontrol.errors import SizeError
from attncontrol.inspector.quantise import text
from attncontrol.inspector.selfcontained import is_made, rendered, scripts_of
from attncontrol.report.arms import Arm, settings_of, shared_settings
from attncontrol.report.rows import SIDES, Row, inside
from attncontrol.report.statistics import Estimate, Line, lines_of
from attncontrol.scores.names import ABOUT
from attncontrol.version import __version__

MOST = SIDES[-1][0]
"""Pictures of a page."""
_SHARED = ("dom", "state", "theme")  # scripts of the inspector


def page(rows: Sequence[Row], scores: Sequence[str], folder: Path, place: Path) -> str:
    """HTML that needs neither network nor server. Small pictures are in it; those in full size, and
    records, are linked from ``place``, where the page will be, to the ``folder`` of the job.

    Raises SizeError for more than ``MOST`` pictures.
    """
    require_size(len(rows))
    return rendered(
        "attncontrol.report",
        scripts=scripts_of("attncontrol.report") | scripts_of("attncontrol.inspector", *_SHARED),
        title=_shown(folder.resolve().name),
        data=_content(rows, scores, _Links(folder, place)),
    )


def require_size(count: int) -> None:
    if count > MOST:
        raise SizeError(
            f"a page holds {MOST:,} pictures and this job has {count:,}; --no-page writes the "
            "tables alone"
        )


def is_page(file: Path) -> bool:
    """Whether it was written here."""
    return is_made(file, "attncontrol report")


class _Links:
    """Addresses, relative to the page, of files in the folder of the job."""

    def __init__(self, folder: Path, place: Path):
        self._folder = folder
        way = os.path.relpath(folder.resolve(), place.resolve().parent)
        self._way = PurePosixPath(Path(way).as_posix())

    def __call__(self, file: str | None) -> str | None:
        """None of what leads out of the folder. "./" before it: a name may look like a scheme."""
        path = inside(file)
        if path is None:
            return None
        return "./" + quote(str(self._way / path).encode("utf-8", "surrogateescape"), safe="/")

    def command(self, name: str, file: str | None) -> str | None:
        """To be typed where this one was."""
        path = inside(file)
        return (
            _shown(f"attncontrol {name} {shlex.quote(str(self._folder / path))}") if path else None
        )

    def inspector(self, record: str | None) -> str | None:
        """The page of ``attncontrol inspect`` beside a record, if it is there."""
        path = inside(record)
        beside = path.with_suffix(".html") if path else None
        return self(str(beside)) if beside and (self._folder / beside).is_file() else None


def _content(rows: Sequence[Row], scores: Sequence[str], links: _Links) -> dict[str, Any]:
    items = [row.made.item for row in rows]
    shared = shared_settings(items)
    arms = list(dict.fromkeys(row.arm for row in rows))
    prompts = list(dict.fromkeys(item.prompt for item in items))
    seeds = sorted({item.seed for item in items})
    place: dict[str, dict[Any, int]] = {
        "arm": {arm: k for k, arm in enumerate(arms)},
        "prompt": {prompt: k for k, prompt in enumerate(prompts)},
        "seed": {seed: k for k, seed in enumerate(seeds)},
    }
    return {
        "version": __version__,
        "shared": shared,
        "arms": [arm.name for arm in arms],
        "prompts": prompts,
        "seeds": [str(seed) for seed in seeds],  # numbers of JavaScript are too short for some
        "scores": [{"name": name, "about": ABOUT.get(name, "your own")} for name in scores],
        "lines": [_line(line, scores, place["arm"]) for line in lines_of(rows, scores)],
        "pictures": [_picture(row, scores, shared, place, links) for row in rows],
    }


def _picture(
    row: Row,
    scores: Sequence[str],
    shared: Mapping[str, str],
    place: Mapping[str, Mapping[Any, int]],
    links: _Links,
) -> dict[str, Any]:
    made, item = row.made, row.made.item
    settings = {k: v for k, v in settings_of(item).items() if shared.get(k) != v}
    told = {
        "prompt": place["prompt"][item.prompt],
        "arm": place["arm"][row.arm],
        "seed": place["seed"][item.seed],
        "source": place["prompt"].get(item.source),
        "name": item.name,
        "settings": settings,
        "small": text(row.small) if row.small else None,
        "size": row.size,
        "file": links(made.file) if row.error is None else None,
        "repeat": links.command("repeat", made.file if row.error is None else None),
        "record": links(made.record),
        "inspect": links.command("inspect", made.record),
        "inspector": links.inspector(made.record),
        "error": row.error,
        "losses": [_finite(loss) for loss in made.losses],
        "refinements": list(made.refinements),
        "seconds": _finite(made.seconds),
        "scores": [_finite(row.scores.get(name)) for name in scores],
    }
    return {name: value for name, value in told.items() if value not in (None, [], {})}


def _line(line: Line, scores: Sequence[str], place: Mapping[Arm, int]) -> dict[str, Any]:
    return {
        "arm": place[line.arm],
        "pictures": line.pictures,
        "failed": line.failed,
        "seconds": _finite(line.seconds),
        "against": None if line.against is None else place[line.against],
        "pairs": line.pairs,
        "time": _finite(line.time),
        "means": [_estimate(line.means.get(name)) for name in scores],
        "gains": [_estimate(line.gains.get(name)) for name in scores],
    }


def _estimate(of: Estimate | None) -> dict[str, Any] | None:
    if of is None:
        return None
    numbers = {"value": of.value, "low": of.low, "high": of.high}
    return {name: _finite(value) for name, value in numbers.items()} | {"prompts": of.prompts}


def _finite(value: float | None) -> float | None:
    return round(value, 5) if value is not None and math.isfinite(value) else None


def _shown(path: str) -> str:
    """A name that is no UTF-8, with escapes."""
    return path.encode("utf-8", "backslashreplace").decode()
