"""Scores of a folder's pictures, kept beside them: no picture is scored twice by the same score."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from attncontrol.batch.results import append_lines, read_lines
from attncontrol.errors import ResultsError, WriteError
from attncontrol.jobs.made import Made
from attncontrol.scores.names import NEEDS, SPRITES, Models
from attncontrol.scores.score import Score, values_of
from attncontrol.verbs.about import versions

NAME = "scores.jsonl"
_Key = tuple[str, str, str]
"""What identifies a score; the pixels of a picture; what was asked of it."""


def source_of(name: str, score: Score, models: Models) -> str | None:
    """What the values of a score depend on beside the picture, as a short text: versions, the files
    of its models, the module of one's own. None for what cannot be told: it is not kept."""
    told: list[Any] = [name, sorted(versions().items())]
    if name in NEEDS:
        told += [_files(getattr(models, kind)) for kind in NEEDS[name]]
    elif name not in SPRITES:
        try:
            told.append(Path(str(inspect.getsourcefile(score))).read_bytes())
        except (OSError, TypeError):
            return None
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _files(model: str) -> Any:
    """A hub id, or what tells files of a folder from others."""
    folder = Path(model)
    files = sorted(folder.rglob("*")) if folder.is_dir() else []
    return model, [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


@dataclass
class Kept:
    """``sources``: of every score what ``source_of`` says."""

    file: Path
    scores: Mapping[str, Score]
    sources: Mapping[str, str | None]
    known: dict[_Key, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, scores: Mapping[str, Score], models: Models) -> "Kept":
        """Raises ResultsError for a file that holds something else."""
        file = folder / NAME
        try:
            known = {(a, b, c): float(value) for a, b, c, value in read_lines(file)}
        except (TypeError, ValueError) as error:
            raise ResultsError(f"{file} holds no scores ({error}); move it elsewhere") from error
        sources = {name: source_of(name, score, models) for name, score in scores.items()}
        return cls(file, scores, sources, known)

    @classmethod
    def nowhere(cls, scores: Mapping[str, Score]) -> "Kept":
        """Of which nothing is kept."""
        return cls(Path(NAME), scores, dict.fromkeys(scores))

    def by_name(self) -> dict[str, Callable[..., list[float]]]:
        """Functions of pictures and what a job says of them."""
        return {name: partial(self.values, name) for name in self.scores}

    def values(
        self, name: str, pictures: Sequence[Image.Image], made: Sequence[Made]
    ) -> list[float]:
        """Raises SettingError as ``values_of``."""
        source = self.sources[name]
        keys = [(str(source), str(each.pixels), each.item.mark) for each in made]
        new = [k for k, key in enumerate(keys) if source is None or key not in self.known]
        if new:
            # all of them are the very list that other scores get, who keep what they have found
            whole = len(new) == len(keys)
            some = pictures if whole else [pictures[k] for k in new]
            items = [made[k].item for k in new]
            found = dict(zip(new, values_of(name, self.scores[name], some, items), strict=True))
            if source is None:
                return [found[k] for k in range(len(keys))]
            with suppress(WriteError):  # a folder of others is scored again
                append_lines(self.file, [(*keys[k], value) for k, value in found.items()])
            self.known |= {keys[k]: value for k, value in found.items()}
        return [self.known[key] for key in keys]
