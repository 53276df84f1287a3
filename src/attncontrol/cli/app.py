"""What all commands share."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from attncontrol.cli import checks
from attncontrol.cli.failures import clean_errors, clean_warnings, console
from attncontrol.errors import UnsupportedError
from attncontrol.version import __version__

__all__ = ["app", "command_line", "console", "optional_chart"]


class Program(TyperGroup):
    """All commands; what goes wrong in any of them ends in one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for each in args:
            checks.printable(each)
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal that cannot show a prompt shows escapes
                stream.reconfigure(errors="backslashreplace")
        with clean_errors(), clean_warnings():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Program,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Record and edit attention inside text-to-image diffusion models.",
)


class PromptCommand(TyperCommand):
    """A command with one prompt: says what to do about a prompt without quotes, and keeps its
    arguments for ``command_line``."""

    allow_extra_args = True  # so that they can be named below
    context_class = typer.Context  # what the commands are declared to take

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[__name__] = tuple(args)
        if extra := super().parse_args(ctx, args):
            whole = " ".join([str(ctx.params.get("prompt") or ""), *extra]).strip()
            raise typer.BadParameter(
                f'{" ".join(extra)!r} is too much; quote the prompt: "{whole}"'
            )
        return []


def command_line(ctx: typer.Context) -> list[str]:
    """What was typed."""
    return ["attncontrol", str(ctx.info_name), *ctx.meta[__name__]]


def _version(show: bool) -> bool:
    if show:
        typer.echo(f"attncontrol {__version__}")
        raise typer.Exit
    return show


@app.callback()
def _main(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    # import notes of the libraries would bury what a command says
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@contextmanager
def optional_chart() -> Iterator[None]:
    """The results of a long run are there without matplotlib too."""
    try:
        yield
    except UnsupportedError as error:
        console.print(f"No chart: {error}")
