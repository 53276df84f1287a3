"""What all commands share."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from attncontrol.errors import AttnControlError, UnsupportedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Record and edit attention inside text-to-image diffusion models.",
)
console = Console(stderr=True)

Model = Annotated[
    str,
    typer.Option(
        help="sprites, sprites-sd3, sprites-flux (bundled), a local pipeline folder, or a hub id."
    ),
]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


@app.callback()
def _main() -> None:
    """Import notes and loading bars of the libraries would bury what a command says."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from attncontrol.batch.options import quiet

    quiet()


@contextmanager
def clean_errors() -> Iterator[None]:
    try:
        yield
    except AttnControlError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", highlight=False)
        raise typer.Exit(2) from error


@contextmanager
def optional_chart() -> Iterator[None]:
    """The results of a long run are there without matplotlib too."""
    try:
        yield
    except UnsupportedError as error:
        console.print(f"No chart: {escape(str(error))}", highlight=False)


def precision(name: str) -> Any:
    """The torch.dtype of ``--dtype``."""
    from attncontrol.batch.options import DTYPES

    if name not in DTYPES:
        raise typer.BadParameter(f"--dtype {name}: choose from {', '.join(DTYPES)}")
    return DTYPES[name]
