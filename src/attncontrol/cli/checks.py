"""Values of options, checked before torch is imported: typer.BadParameter says what to write."""

import math
import re
from pathlib import Path

import typer

from attncontrol.batch.options import DTYPES, parse_seeds
from attncontrol.errors import SettingError

Box = tuple[float, float, float, float]


def device(name: str) -> str:
    if not re.fullmatch(r"[a-z]+(:\d+)?", name):
        raise typer.BadParameter(f"{name!r}: write a device of torch, such as cpu, cuda or cuda:1")
    return name


def dtype(name: str) -> str:
    if name not in DTYPES:
        raise typer.BadParameter(f"{name!r}: choose from {', '.join(DTYPES)}")
    return name


def finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def step_size(value: float | None) -> float | None:
    if value is not None and not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value}: a step size is a finite number, 0 or larger")
    return value


def strengths(text: str) -> str:
    try:
        values = [float(u) for u in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: write numbers separated by commas") from error
    if values[0] != 0 or not all(0 <= u <= 1 for u in values):
        raise typer.BadParameter(f"{text!r}: strengths lie between 0 and 1, the first is 0")
    return text


def pixels(value: int | None) -> int | None:
    if value is not None and (value < 1 or value % 8):
        raise typer.BadParameter(f"{value} is no multiple of 8, the pixels of a latent cell")
    return value


def prompt(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise typer.BadParameter("the prompt is empty")
    return text


def folder(path: Path) -> Path:
    """That can be made, or is one."""
    _check_parents(path)
    if path.is_file():
        raise typer.BadParameter(f"{path} is a file; give a folder")
    return path


def file(path: Path | None) -> Path | None:
    """That can be written."""
    if path is not None:
        _check_parents(path)
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; give a file")
    return path


def picture_file(path: Path) -> Path:
    file(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise typer.BadParameter(f"{path}: a picture ends in .png, .jpg or .webp")
    return path


def record_path(path: Path) -> Path:
    """A file, or a folder of steps."""
    return Path(file(path) or path) if path.suffix == ".safetensors" else folder(path)


def _check_parents(path: Path) -> None:
    try:
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        path.exists()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    if not nearest.is_dir():
        raise typer.BadParameter(f"{path} cannot be made: {nearest} is a file")


def seeds(text: str) -> list[int]:
    """``"0-3,8"`` -> [0, 1, 2, 3, 8]."""
    try:
        return parse_seeds(text)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--seeds") from error


def groups(words: str | None) -> list[list[str]] | None:
    """``"red+car,cat"`` -> [["red", "car"], ["cat"]]; None: by the parse."""
    if words is None:
        return None
    found = [[word.strip() for word in group.split("+")] for group in words.split(",")]
    if not all(word for group in found for word in group):
        raise typer.BadParameter(
            f"{words!r}: write words separated by commas, as in red+car,cat", param_hint="--words"
        )
    return found


def boxes(texts: list[str] | None) -> dict[str, Box]:
    """``["cat=0,0.2,0.5,1"]`` -> {"cat": (0.0, 0.2, 0.5, 1.0)}."""
    return dict(_box(text) for text in texts or [])


def _box(text: str) -> tuple[str, Box]:
    word, _, numbers = text.rpartition("=")
    try:
        left, top, right, bottom = map(float, numbers.split(","))
    except ValueError:
        why = "write word=left,top,right,bottom in fractions of the picture"
    else:
        if word.strip() and 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
            return word.strip(), (left, top, right, bottom)
        if not word.strip():
            why = "it names no word; write word=left,top,right,bottom"
        elif 1 < max(left, top, right, bottom) < math.inf:
            why = "these look like pixels; write fractions of the picture, 0 to 1"
        else:
            why = "left < right and top < bottom must lie between 0 and 1"
    raise typer.BadParameter(f"{text}: {why}", param_hint="--box")


def prompts(given: str | None, path: Path | None) -> list[str]:
    """The one that was given, or the lines of a file that are neither empty nor comments."""
    if (given is None) == (path is None):
        raise typer.BadParameter("give either a prompt or --prompts FILE")
    if path is None:
        return [str(given)]
    try:
        text = path.read_text("utf-8-sig")  # a byte order mark is no part of the first prompt
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(
            f"{path} cannot be read as UTF-8 text ({error})", param_hint="--prompts"
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise typer.BadParameter(f"{path} holds no prompt", param_hint="--prompts")
    return lines
