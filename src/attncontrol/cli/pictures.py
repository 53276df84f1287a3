"""Picture files that commands read."""

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from attncontrol.errors import SettingError, SizeError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Of the files of a folder that are taken for pictures."""


def found(given: Sequence[str]) -> list[Path]:
    """Files as they are named, those of folders, and those of patterns ("photos/*.jpg"), in order,
    each once. Raises typer.BadParameter for what names no file."""
    paths: list[Path] = []
    for text in given:
        try:
            files = _found(text)
        except (OSError, ValueError):  # too long, or no name of a file
            files = []
        if not files:
            shown = text.encode("utf-8", "backslashreplace").decode()
            raise typer.BadParameter(f"{shown[:80]}: there is no picture", param_hint="PICTURES")
        paths += files
    return list(dict.fromkeys(paths))


def _found(text: str) -> list[Path]:
    path = Path(text)
    if text.strip() and path.is_file():
        return [path]
    if text.strip() and path.is_dir():
        inside = [each for each in sorted(path.iterdir()) if each.suffix.lower() in ENDINGS]
    else:
        inside = [Path(each) for each in sorted(glob.glob(text, recursive=True))]
    return [each for each in inside if each.is_file()]


def stems(files: Sequence[Path]) -> list[str]:
    """A name for what is made of every file: its stem, its name where stems agree, numbered where
    names agree."""
    of_stem = Counter(file.stem for file in files)
    of_name = Counter(file.name for file in files)
    return [
        file.stem
        if of_stem[file.stem] == 1
        else file.name
        if of_name[file.name] == 1
        else f"{file.name}.{number}"
        for number, file in enumerate(files)
    ]


def opened(path: Path, limit: float, most: str | None = None) -> Any:
    """A PIL image. Raises SizeError for more than ``limit`` million pixels, before they are
    decoded, which ``most`` tells, and SettingError for a file that is no picture."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the limit is ours
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > limit * 1e6:
                raise SizeError(
                    f"{path} has {width} x {height} pixels, {width * height / 1e6:.0f} million; "
                    f"more than {most or f'--limit {limit:g}'}"
                )
            picture.load()
    except SizeError:
        raise
    except Exception as error:  # decoders raise whatever their damaged data leads them to
        raise SettingError(f"{path} is no picture that can be read ({error})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before
    return picture
