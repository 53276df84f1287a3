"""Records of a run of ``attncontrol edit``: the source and the edited picture of a seed."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from attncontrol.batch.edit_pictures import Start, editing
from attncontrol.batch.generate import Picture
from attncontrol.batch.runs import Edited, EditingRun, load_run
from attncontrol.batch.settings import Editing
from attncontrol.errors import ResultsError
from attncontrol.export.names import record_of
from attncontrol.maps.images import joined
from attncontrol.maps.reading import load
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.store import save
from attncontrol.maps.taken import TakenOver
from attncontrol.verbs.record import record


@contextmanager
def around_call(
    pipe: Any,
    settings: Editing,
    start: Start,
    cells: list[Any],
    kept: list[AttentionMaps],
    mask: Tensor | None = None,
) -> Iterator[None]:
    """Around a call for a source and its edit, see ``editing``; ``kept`` gets its maps, if any are
    to be recorded."""
    with ExitStack() as stack:
        stack.enter_context(editing(pipe, settings, start, cells, mask))
        words = settings.record
        maps = stack.enter_context(record(pipe, words, keep=("step", "head"))) if words else None
        yield
    if maps is not None:
        kept.append(maps)


def with_records(
    rows: Sequence[Edited], kept: Sequence[AttentionMaps], sources: Sequence[Picture], out: Path
) -> list[Edited]:
    """Writes a record for every source and its edited picture, to which it belongs."""
    digests, edited = {}, next(row.role for row in rows if row.role not in ("source", "plain"))
    for maps, source in zip(kept, sources, strict=True):
        row = next(row for row in rows if row.seed == source.seed and row.role == edited)
        with Image.open(out / row.file) as picture:
            pictures = [source.image, picture.convert("RGB")]
        file = record_of(row.prompt, row.seed)
        digests[row.seed] = {file: _write(maps, pictures, out / file)}
    return [
        row.model_copy(update={"sha256": row.sha256 | digests[row.seed]})
        if row.role == edited
        else row
        for row in rows
    ]


def _write(maps: AttentionMaps, pictures: Sequence[Image.Image], file: Path) -> str:
    """The SHA-256 of the file."""
    if maps.taken is None:  # the edit has no source, but changes the second picture alone
        maps = maps.replace(taken=TakenOver((0, 0)))
    save(maps.replace(pictures=list(pictures)), file, encoding="float16")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def records_in(folder: Path, limit: float) -> AttentionMaps:
    """All records of a run in a folder, of at most ``limit`` bytes each. Raises ResultsError if
    there are none."""
    settings = load_run(folder / "run.json", EditingRun).settings
    names = [name for unit in settings.units for name in settings.records(unit)]
    files = [folder / name for name in names if (folder / name).exists()]
    if not files:
        raise ResultsError(f"{folder} holds no records: make it with attncontrol edit --record")
    return joined([load(file, limit=limit) for file in files])
