"""Runs in their folders: what is there is kept, what is missing is made."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attncontrol.batch.results import differences
from attncontrol.batch.runs import Failure, Picture, R, Run, load_run, sealed
from attncontrol.batch.settings import Settings, Unit
from attncontrol.errors import ResultsError, WriteError
from attncontrol.export.folder import is_picture
from attncontrol.maps.store import is_record
from attncontrol.writing import locked

_LATE = ("scheduler", "parameters")  # known when the pipeline is there


def opened(out: Path, run: R) -> R:
    """``run``, with those of its pictures that ``out`` holds whole. Raises WriteError where ``out``
    holds files of others, ResultsError where it holds a run with other settings or versions."""
    there = {path.name for path in out.iterdir() if path.name[0] != "."} if out.is_dir() else set()
    if there and "run.json" not in there:
        raise WriteError(
            f"{out} holds {min(there)} and no run; give an empty or a new folder with --out"
        )
    before = load_run(out / "run.json", type(run)) if there else run
    if there == {"run.json"} and not before.pictures:
        before = run
    if found := differences(_told(before), _told(run), _LATE):
        raise ResultsError(
            f"{out} holds a run with other settings ({'; '.join(found[:3])}); give another folder "
            "with --out, or remove this one"
        )
    ours = {name for picture in before.pictures for name in picture.sha256}
    for unit in run.settings.units:
        settings = run.settings
        names = {*settings.pictures(unit), *settings.sheets(unit), *settings.records(unit)}
        for name in names & there - ours:
            if not (is_picture(out / name) or is_record(out / name)):
                raise WriteError(f"{out / name} was not made by this command; move it elsewhere")
    kept = [picture for picture in before.pictures if picture.is_whole(out)]
    return run.model_copy(update={"pictures": kept})


def require_same(wanted: Settings, found: Settings) -> None:
    """Raises ResultsError if an earlier run was made with what cannot be had here."""
    if wrong := differences(_flat(wanted), _flat(found), _LATE):
        raise ResultsError(f"the run cannot be repeated exactly: {'; '.join(wrong[:3])}")


def _told(run: Run) -> dict[str, Any]:
    return _flat(run.settings) | run.versions


def _flat(settings: Settings) -> dict[str, Any]:
    """With the arguments of the call by their names."""
    values = settings.model_dump(mode="json")
    return values | values.pop("call")


def carry_out(
    run: R,
    out: Path,
    make: Callable[[Unit], Sequence[Picture]],
    progress: Callable[[Iterable[Unit]], Iterable[Unit]] = iter,
) -> R:
    """Makes the units of ``run`` whose pictures ``out`` lacks, one process at a time; ``make``
    writes them.

    A prompt that fails is in ``failed`` with its error, and the others are made. Raises WriteError,
    also where another process is at work, and as ``opened``.
    """
    with locked(out):
        return _carried_out(opened(out, run), out, make, progress)


def _carried_out(
    run: R,
    out: Path,
    make: Callable[[Unit], Sequence[Picture]],
    progress: Callable[[Iterable[Unit]], Iterable[Unit]],
) -> R:
    made: dict[str, Picture] = {picture.file: picture for picture in run.pictures}
    failed: dict[str, Exception] = {}
    _state(run, made, failed).write(out)
    due = 0.0
    for unit in progress(run.settings.units):
        if unit.prompt in failed or made.keys() >= {*run.settings.pictures(unit)}:
            continue
        try:
            pictures = make(unit)
        except OSError:
            raise
        except Exception as error:
            failed[unit.prompt] = error
            continue
        made |= {picture.file: picture for picture in pictures}
        if (began := time.monotonic()) >= due:  # a long list costs no more than a twentieth
            _state(run, made, failed).write(out)
            due = began + 20 * (time.monotonic() - began)
    done = sealed(_state(run, made, failed, complete=not failed))
    done.write(out)
    return done


def _state(
    run: R, made: Mapping[str, Picture], failed: Mapping[str, Exception], complete: bool = False
) -> R:
    pictures = [made[name] for name in run.settings.order if name in made]
    failures = [
        Failure(prompt=prompt, error=f"{type(error).__name__}: {error}")
        for prompt, error in failed.items()
    ]
    return run.model_copy(update={"pictures": pictures, "failed": failures, "complete": complete})
