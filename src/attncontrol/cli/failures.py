"""What goes wrong in any command, in one line: exit code 2 for what was asked and cannot be done,
found before anything was, 1 for what failed while it was done.

An error that nobody expects is shown in one line too, with the line of the file that raised it: the
user's own file where an objective or a method of the user did.
"""

import os
import sysconfig
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from attncontrol import errors

TRACEBACK = "ATTNCONTROL_TRACEBACK"
"""Environment variable: set, errors keep their traceback."""

# a prompt or a path may hold what rich takes for markup or for an emoji
console = Console(stderr=True, markup=False, highlight=False, emoji=False)

_SHOWN_BY_TYPER: tuple[type[BaseException], ...] = (
    typer.Exit,
    typer.Abort,
    typer.BadParameter.__mro__[2],  # ClickException, which has several homes
    BrokenPipeError,
)
_PACKAGE = Path(errors.__file__).parent
_INSTALLED = (_PACKAGE, *{Path(path) for path in sysconfig.get_paths().values()})


@contextmanager
def clean_errors(refused: int = 2) -> Iterator[None]:
    """Around all commands. ``refused``: the exit code of errors of this package; that of all others
    is 1."""
    try:
        yield
    except _SHOWN_BY_TYPER:
        raise
    except KeyboardInterrupt as error:
        console.print("Interrupted")
        raise typer.Exit(130) from error
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        console.print(
            Text.assemble((type(error).__name__, "red"), f": {told(error)}"), soft_wrap=True
        )
        ours = isinstance(error, errors.AttnControlError)
        raise typer.Exit(refused if ours else 1) from error


work = partial(clean_errors, 1)
"""Around what a command does when all that was asked is checked: what goes wrong has failed."""


@contextmanager
def clean_warnings() -> Iterator[None]:
    """Around all commands: what is warned of in one line, without the place in the code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = " ".join(_printable(str(message)).split())
        console.print(Text.assemble(("Warning", "yellow"), f": {text}"), soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def told(error: Exception) -> str:
    """What happened and, of an error that is not ours, where."""
    if isinstance(error, errors.AttnControlError):
        return _printable(str(error))
    if isinstance(error, OSError) and error.strerror:
        return _printable(f"{error.filename or 'writing'}: {error.strerror}")
    if isinstance(error, MemoryError) or "alloc" in str(error):
        return f"there is not enough memory ({_first_line(error)}); try a smaller --batch"
    return f"{_first_line(error)} ({_place(error)}; {TRACEBACK}=1 shows where it came from)"


def _first_line(error: Exception) -> str:
    return _printable((str(error).strip() or "no message").splitlines()[0])


def _place(error: Exception) -> str:
    """The innermost line of the user's own code; without one, the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    frame = own[-1] if own else frames[-1]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    return f"{frame.filename}, line {frame.lineno}"


def _is_installed(file: str) -> bool:
    path = Path(file)
    return file.startswith("<") or any(place in path.parents for place in _INSTALLED)


def _printable(text: str) -> str:
    """Without lone surrogates, which no terminal takes, and without control characters, which it
    would obey."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) != "Cc" else repr(letter)[1:-1]
        for letter in text
    )
