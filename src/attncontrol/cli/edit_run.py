"""What ``attncontrol edit`` makes and writes."""

from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track

from attncontrol.cli import changes, photos, repeat
from attncontrol.cli.app import console
from attncontrol.cli.failures import work


def carried_out(run: Any, pipe: Any, out: Path) -> Any:
    """Makes the pictures that ``out`` lacks; ``run`` as it then is."""
    from attncontrol.batch.edit_changes import edits_for
    from attncontrol.batch.resume import carry_out

    wanted = run.settings
    if wanted.method not in changes.NO_METHODS:
        edits_for(wanted, None, pipe)  # refuses what the pipeline cannot have
    run = run.model_copy(update={"settings": repeat.complete(pipe, wanted)})
    picture, mask = photos.required(pipe, wanted)
    progress = partial(track, description="editing", console=console)
    with work():
        return carry_out(run, out, partial(_made, pipe, run, out, picture, mask), progress)


def _made(pipe: Any, run: Any, out: Path, picture: Any, mask: Any, unit: Any) -> list[Any]:
    """The pictures of a few seeds by role, written, and a grid of them to compare."""
    from attncontrol.batch.edit_records import with_records

    settings, cells, kept, shown = run.settings, list[Any](), list[Any](), None
    made: dict[str, list[Any]] = {role: [] for role in settings.roles}
    starts = dict(zip(unit.seeds, unit.seeds, strict=True))
    if picture is not None:
        start = photos.start(pipe, settings, picture, out)
        starts, shown = dict.fromkeys(unit.seeds, start), start.pictures[0]
    for seed, start in starts.items():
        pair = _pair(pipe, settings, start, seed, cells, kept, mask)
        for role, one in zip(settings.roles, pair, strict=False):
            made[role].append(one)
        _compared(pipe, settings, start, seed, made, mask)
    if mask is not None:
        cells = [~mask] * len(starts)
    rows = _written(made, cells, run, out, unit.seeds, shown)
    return with_records(rows, kept, made["source"], out) if kept else rows


def _pair(
    pipe: Any, settings: Any, start: Any, seed: int, cells: list[Any], kept: list[Any], mask: Any
) -> tuple[Any, Any]:
    """The source and its edit, of one call; of a photo that is kept the edit alone is made."""
    from attncontrol.batch.edit_changes import objective_for
    from attncontrol.batch.edit_pictures import call_of
    from attncontrol.batch.edit_records import around_call
    from attncontrol.batch.edit_sources import KeptPhoto
    from attncontrol.batch.generate import generate

    options = call_of(settings, start) | {"objective": objective_for(settings), "batch": 2}
    options |= {} if isinstance(start, int) else {"steered": (1,)}
    jobs = [(settings.prompt, seed), (settings.to, seed)]
    around = partial(around_call, pipe, settings, start, cells, kept, mask)
    if isinstance(start, KeptPhoto):
        (edited,) = generate(pipe, jobs[1:], None, around=around, **options | {"steered": (0,)})
        return start.rebuilt(pipe, seed), edited
    source, edited = generate(pipe, jobs, None, around=around, **options)
    return source, edited


def _compared(
    pipe: Any, settings: Any, start: Any, seed: int, made: dict[str, list[Any]], mask: Any
) -> None:
    """Beside the edit: the new prompt from the same seed, edits of a photo at other strengths."""
    from attncontrol.batch.generate import generate
    from attncontrol.export.names import plain

    if "plain" in made:
        made["plain"] += generate(pipe, [(settings.to, seed)], None, **settings.call)
    for method in settings.others:
        other = settings.model_copy(update={"method": method, "record": None})
        made[plain(method)].append(_pair(pipe, other, start, seed, [], [], mask)[1])


def _written(
    made: dict[str, list[Any]], cells: list[Any], run: Any, out: Path, seeds: Any, photo: Any
) -> list[Any]:
    """One record per picture."""
    from attncontrol.batch.edit_pictures import compared
    from attncontrol.batch.runs import Edited
    from attncontrol.export.folder import save
    from attncontrol.export.names import name_of, sheet_of
    from attncontrol.maps.draw import grid

    settings, sheet, records = run.settings, None, []
    about = settings.model_dump(mode="json", exclude={"seeds"})
    told, digests = {"settings": about, "versions": run.versions}, {}
    if settings.compare:
        rows = compared(made, cells, settings, photo)
        columns = [f"seed {seed}" for seed in seeds]
        if settings.photo and len(columns) == 1:
            columns = [Path(settings.photo.file).name]
        shown = grid(rows, columns, title=f"{settings.prompt} -> {settings.to}")
        sheet = sheet_of(settings.to, "compare", seeds)
        digests = {sheet: save(shown, out / sheet, told | {"seeds": list(seeds)})}
    for role, pictures in made.items():
        for picture in pictures:
            of_picture: dict[str, Any] = {
                "prompt": picture.prompt,
                "role": role,
                "seed": picture.seed,
            }
            file = name_of(picture.prompt, role, picture.seed)
            digest = {file: save(picture.image, out / file, told | of_picture)} | digests
            rest: dict[str, Any] = {"file": file, "compare_file": sheet, "sha256": digest}
            records.append(Edited(**of_picture, **rest, seconds=picture.seconds))
    return records
