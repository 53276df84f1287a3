"""Values of options, checked before torch is imported: typer.BadParameter says what to write."""

import codecs
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from attncontrol.batch.options import DTYPES, parse_seeds, require_model, step_of
from attncontrol.batch.short_forms import Box, parse_box, parse_groups
from attncontrol.errors import ModelError, SettingError

MOST_PIXELS = 8192  # of a side
LONGEST_PROMPT = 10_000  # characters; the longest text of any model is a tenth of that


def device(name: str) -> str:
    if not re.fullmatch(r"[a-z]+(:\d+)?", name):
        raise typer.BadParameter(f"{name!r}: write a device of torch, such as cpu, cuda or cuda:1")
    return name


def model(name: str) -> str:
    try:
        require_model(name)
    except ModelError as error:
        raise typer.BadParameter(str(error)) from error
    return name


def one_of(names: Collection[str]) -> Callable[[str | None], str | None]:
    """A check of a name."""

    def check(name: str | None) -> str | None:
        if name is not None and name not in names:
            raise typer.BadParameter(f"{name!r}: choose from {', '.join(names)}")
        return name

    return check


def between(low: float, high: float) -> Callable[[float | None], float | None]:
    """A check of a number; NaN lies nowhere."""

    def check(value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value} is no number from {low:g} to {high:g}")
        return value

    return check


dtype = one_of(DTYPES)
scale = between(0.0, 1000.0)
unit = between(0.0, 1.0)


def step_size(text: str | None) -> str | None:
    try:
        if text is not None:
            step_of(text)
    except SettingError as error:
        raise typer.BadParameter(str(error)) from error
    return text


def strengths(text: str) -> str:
    try:
        values = [float(u) for u in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: write numbers separated by commas") from error
    if values[0] != 0 or not all(0 <= u <= 1 for u in values):
        raise typer.BadParameter(f"{text!r}: strengths lie between 0 and 1, the first is 0")
    return text


def pixels(value: int | None) -> int | None:
    if value is not None and (not 1 <= value <= MOST_PIXELS or value % 8):
        raise typer.BadParameter(
            f"{value} is no multiple of 8, the pixels of a latent cell, up to {MOST_PIXELS}"
        )
    return value


def prompt(text: str | None) -> str | None:
    if text is not None and not text.strip():
        raise typer.BadParameter("the prompt is empty")
    if text is not None and len(text) > LONGEST_PROMPT:
        raise typer.BadParameter(
            f"the prompt has {len(text)} characters; at most {LONGEST_PROMPT} are read"
        )
    return plain(text)


def texts(prompts: Iterable[str]) -> None:
    """Those of an earlier run."""
    for text in prompts:
        prompt(text)
        printable(text)


def printable(text: str) -> str:
    """Raises typer.BadParameter for what a terminal takes for a command."""
    if any(unicodedata.category(letter) == "Cc" and letter not in "\n\t" for letter in text):
        raise typer.BadParameter(
            f"{text[:80]!r}: prompts, names and paths hold no control characters"
        )
    return text


def effects(why: str, **idle: bool) -> None:
    """Raises typer.BadParameter for options, by their names, that do nothing although given."""
    for name in (name for name, does_nothing in idle.items() if does_nothing):
        option = f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"it has no effect with {why}; leave it out", param_hint=option)


def plain(text: str | None) -> str | None:
    """Text that can be written down."""
    if text is not None and any("\ud800" <= letter <= "\udfff" for letter in text):
        shown = text.encode("utf-8", "backslashreplace").decode()
        raise typer.BadParameter(f"{shown}: this is no text in the encoding of the terminal")
    return text


def names(text: str | None) -> str | None:
    """One or several, separated by commas."""
    if text is not None and not all(part.strip() for part in text.split(",")):
        raise typer.BadParameter(f"{text!r}: write names separated by commas")
    return plain(text)


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
    try:
        return parse_groups(words)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--words") from error


def boxes(texts: list[str] | None, option: str = "--box") -> dict[str, Box]:
    """``["cat=0,0.2,0.5,1"]`` -> {"cat": (0.0, 0.2, 0.5, 1.0)}."""
    found = [_box(text, option) for text in texts or []]
    words = [word for word, _ in found]
    if twice := [word for word in words if words.count(word) > 1]:
        raise typer.BadParameter(f"{twice[0]!r} has two boxes", param_hint=option)
    return dict(found)


def _box(text: str, option: str) -> tuple[str, Box]:
    try:
        return parse_box(text)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def prompts(given: str | None, path: Path | None) -> list[str]:
    """The one that was given, or the lines of a file that are neither empty nor comments: "# " and
    what follows. Raises typer.BadParameter naming the line for all else."""
    if (given is None) == (path is None):
        raise typer.BadParameter("give either a prompt or --prompts FILE")
    if path is None:
        return [str(given)]
    lines = [line.strip() for line in _text(path).split("\n")]
    for number, line in enumerate(lines, 1):
        wrong = None
        if line.startswith("#") and not line.startswith(("# ", "##")) and line != "#":
            wrong = "a comment begins with '# ', a prompt does not begin with #"
        elif len(line) > LONGEST_PROMPT:
            wrong = f"a prompt has at most {LONGEST_PROMPT} characters, not {len(line)}"
        elif any(unicodedata.category(letter) == "Cc" and letter != "\t" for letter in line):
            wrong = "this is no text"
        if wrong:
            raise typer.BadParameter(
                f"{path}, line {number}, {line[:40]!r}: {wrong}", param_hint="--prompts"
            )
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise typer.BadParameter(f"{path} holds no prompt", param_hint="--prompts")
    return lines


def _text(path: Path) -> str:
    """UTF-8, or UTF-16 that says so; a byte order mark is no part of the first prompt."""
    try:
        data = path.read_bytes()
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(
            f"{path} cannot be read as UTF-8 text ({error})", param_hint="--prompts"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def words_in(prompts: Iterable[str], words: Iterable[str], option: str = "--words") -> None:
    """Raises typer.BadParameter unless every word is in every prompt."""
    from attncontrol.prompts.presence import absent

    for text in prompts:
        for word in words:
            if wrong := absent(text, word):
                raise typer.BadParameter(wrong, param_hint=option)


def subjects(
    prompts: Iterable[str],
    groups: Sequence[Sequence[str]] | None,
    boxes: Mapping[str, Any] | None = None,
) -> None:
    """Raises typer.BadParameter unless the words and boxes that were given are in every prompt, and
    WordError for a prompt without a noun if none were given."""
    if groups or boxes:
        words_in(prompts, [word for group in groups or [] for word in group])
        words_in(prompts, boxes or {}, "--box")
        return
    from attncontrol.prompts.syntax import nouns

    for text in prompts:
        nouns(text)
