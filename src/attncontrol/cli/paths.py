"""Files and folders that options name, checked before anything is computed: typer.BadParameter says
what to write."""

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import typer

from attncontrol.errors import ResultsError


def named(text: str | Path) -> Path:
    """Of an option: ``Path("")`` would be the current folder."""
    if not str(text).strip():
        raise typer.BadParameter("the path is empty; the current folder is .")
    return Path(text)


PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
ENDINGS = PICTURES | {".safetensors", ".npz", ".npy", ".csv", ".json", ".html", ".txt", ".pt"}
"""Of files: a folder of such a name is a mistake."""


def folder(path: Path) -> Path:
    """That can be made, or is one."""
    require(path, as_folder=True)
    if path.suffix.lower() in ENDINGS and not path.is_dir():
        raise typer.BadParameter(f"{path}: a folder is made, and this is the name of a file")
    return path


def file(path: Path | None) -> Path | None:
    """That can be written."""
    if path is not None:
        require(path, as_folder=False)
    return path


def require(path: Path, *, as_folder: bool, option: str | None = None) -> None:
    """Raises typer.BadParameter for a path at which this cannot be written."""
    _require_room(path, option)
    if as_folder and path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file; give a folder", param_hint=option)
    if not as_folder and path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; give a file", param_hint=option)


def picture_file(path: Path) -> Path:
    file(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise typer.BadParameter(f"{path}: a picture ends in .png, .jpg or .webp")
    return path


def page_file(path: Path | None) -> Path | None:
    file(path)
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"{path}: a page ends in .html")
    return path


def record_path(path: Path) -> Path:
    """A file, or a folder of steps."""
    if path.suffix.lower() in ENDINGS - {".safetensors"} and not path.is_dir():
        raise typer.BadParameter(f"{path}: a record ends in .safetensors, or is a folder of steps")
    return Path(file(path) or path) if path.suffix == ".safetensors" else folder(path)


def existing(path: Path | None) -> Path | None:
    """A file or folder that is read."""
    if path is not None:
        _require_name(path)
        if not path.name or not path.exists():
            raise typer.BadParameter(f"{path} does not exist")
    return path


def heads(path: Path | None) -> Path | None:
    """The result of heads search."""
    from attncontrol.batch.chosen_heads import load_heads

    if path is not None:
        try:
            load_heads(path)
        except ResultsError as error:
            raise typer.BadParameter(str(error)) from error
    return path


def apart(out: Path, inputs: Iterable[Path | None], option: str = "--out") -> None:
    """Raises typer.BadParameter if what is written would replace what is read."""
    for each in inputs:
        if each is not None and out.resolve() == each.resolve():
            raise typer.BadParameter(
                f"{out} is what is read; choose another name", param_hint=option
            )


def _require_name(path: Path, option: str | None = None) -> None:
    """Raises typer.BadParameter for a path that no file can have."""
    try:
        os.stat(os.fsencode(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no name of a file"
        raise typer.BadParameter(f"{_shown(path)}: {reason}", param_hint=option) from error


def _require_room(path: Path, option: str | None = None) -> None:
    """Raises typer.BadParameter where nothing of this path can be written."""
    _require_name(path, option)
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise typer.BadParameter(f"{path} cannot be made: {nearest} is a file", param_hint=option)
    try:
        with tempfile.TemporaryFile(dir=path if path.is_dir() else nearest):
            pass
    except OSError as error:
        reason = os.strerror(error.errno or errno.EACCES)
        raise typer.BadParameter(
            f"{path} cannot be written: {nearest}: {reason}", param_hint=option
        ) from error


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()
