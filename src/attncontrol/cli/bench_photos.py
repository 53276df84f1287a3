"""The suite ``photos`` of ``attncontrol bench``: tables of inversions x editors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer

from attncontrol.bench.suites import INVERSIONS, PHOTOS
from attncontrol.cli import checks
from attncontrol.cli.app import console
from attncontrol.errors import ResultsError, SettingError

_COUNT = 276


@dataclass(frozen=True)
class Asked:
    """Of which pairs, by what."""

    kinds: tuple[str, ...]
    inversions: list[str]
    editors: list[str] | None
    folder: Path | None
    count: int | None
    seed: int


def asked(
    kinds: str | None, inversions: str | None, editors: str | None, folder: Path | None,
    count: int | None, seed: int, numbered: bool,
) -> Asked:  # fmt: skip
    """Raises typer.BadParameter for options that do nothing together, and unknown kinds."""
    if numbered and folder is None:
        raise typer.BadParameter("of the suite photos write --count NUMBER", param_hint="--pairs")
    if folder is not None:
        checks.effects("--pairs FOLDER", kind=kinds is not None, seed=seed > 0)
    of_kinds = _names(kinds) or list(PHOTOS)
    if unknown := [kind for kind in of_kinds if kind not in PHOTOS]:
        raise typer.BadParameter(
            f"{unknown[0]!r}: of the suite photos choose from {', '.join(PHOTOS)}",
            param_hint="--kind",
        )
    by = _names(inversions) or list(INVERSIONS[:3])
    return Asked(tuple(of_kinds), by, _names(editors) or None, folder, count, seed)


def _names(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else []
    if twice := [name for name in names if names.count(name) > 1]:
        raise typer.BadParameter(f"{text!r} names {twice[0]} twice")
    return names


@dataclass(frozen=True)
class Table:
    """``rows`` are made of a pipeline; ``require`` refuses one that cannot have them."""

    rows: Callable[..., Any]
    require: Callable[[Any], None] = lambda _: None


def tables(those: Asked, out: Path) -> dict[str, Table]:
    """Every table by its name. Raises typer.BadParameter."""
    from attncontrol.bench.photos import methods
    from attncontrol.bench.photos.measures import require_similarity

    require_similarity()
    try:
        names = those.editors or list(methods.DEFAULT_EDITORS)
        editors = methods.expanded(names, scenes=those.folder is None)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--editors") from error
    cells = {"inversions": those.inversions, "editors": editors, "out": out}
    if those.folder is not None:
        return _of_folder(those.folder, those.count, cells)
    of_kinds = {
        kind: [name for name in editors if methods.fits(name, kind)] for kind in those.kinds
    }
    if idle := [name for name in editors if not any(name in some for some in of_kinds.values())]:
        raise typer.BadParameter(
            f"{idle[0]} does nothing for {', '.join(those.kinds)}", param_hint="--editors"
        )
    count = those.count or _COUNT
    return {
        f"photos-{kind}": Table(
            partial(_scenes, kind, count, those.seed, **cells | {"editors": some}),
            partial(_require, kind, some),
        )
        for kind, some in of_kinds.items()
        if some
    }


def _require(kind: str, editors: list[str], pipe: Any) -> None:
    from attncontrol.bench.photos.methods import require_editor
    from attncontrol.bench.photos.pairs import pairs

    one = pairs(kind, 1)
    for editor in editors:
        require_editor(editor, pipe, one)


def _scenes(kind: str, count: int, seed: int, pipe: Any, **how: Any) -> list[Any]:
    from attncontrol.bench.photos.compare import run
    from attncontrol.bench.photos.pairs import pairs

    name = f"photos-{kind}" + f"-seed-{seed}" * bool(seed)
    return run(_invertible(pipe), name, pairs=pairs(kind, count, seed), **how)


def _of_folder(folder: Path, count: int | None, cells: dict[str, Any]) -> dict[str, Table]:
    """One table for every type of edit, and one of all pairs."""
    from attncontrol.bench.photos.folder import kind_of, read_folder
    from attncontrol.export.names import plain

    try:
        entries = read_folder(folder, count)
    except ResultsError as error:
        raise typer.BadParameter(str(error), param_hint="--pairs") from error
    of_types: dict[str, list[Any]] = {}
    for entry in entries:
        of_types.setdefault(f"pairs-{plain(kind_of(entry))}", []).append(entry)
    chosen = of_types if len(of_types) > 1 else {}
    return {
        name: Table(partial(_folder_pairs, name, folder, some, **cells))
        for name, some in {**chosen, "pairs": entries}.items()
    }


def _folder_pairs(name: str, folder: Path, entries: list[Any], pipe: Any, **how: Any) -> list[Any]:
    from attncontrol.bench.photos.compare import run
    from attncontrol.bench.photos.folder import pairs_of

    size = (how["height"], how["width"]) if {"height", "width"} <= how.keys() else None
    pairs = list(pairs_of(pipe, folder, entries, size))
    return run(_invertible(pipe), name, pairs=pairs, **how)


def _invertible(pipe: Any) -> Any:
    """With a scheduler that can be inverted."""
    from attncontrol.batch.inversions import invertible

    if before := invertible(pipe):
        console.print(f"{before} cannot be inverted: DDIMScheduler with the same noise levels")
    return pipe
