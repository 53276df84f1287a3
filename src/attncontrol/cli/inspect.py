"""The command that writes an HTML page about a record: ``inspect``."""

import json
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from attncontrol.cli import checks
from attncontrol.cli.app import app, clean_errors, console
from attncontrol.cli.options import Json


@app.command()
def inspect(
    record: Annotated[
        Path, typer.Argument(help="A record: a file of attncontrol.save, or a folder of steps.")
    ],
    other: Annotated[Path | None, typer.Argument(help="A second one, shown beside it.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page to write. Default: RECORD with the ending .html.", callback=checks.file
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write a page in which to look at a record: words over the picture, steps, layers, heads,
    agreement of modifiers."""
    with clean_errors():
        from attncontrol.inspector.page import page
        from attncontrol.maps.store import load

        paths = [record] if other is None else [record, other]
        html = page(*map(load, paths), titles=_titles(paths))
    file = out or record.with_name(f"{record.stem}.html")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(html, "utf-8")
    if open_it:
        webbrowser.open(file.resolve().as_uri())
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "file": str(file),
                    "bytes": file.stat().st_size,
                    "records": [str(path) for path in paths],
                }
            )
        )
    else:
        console.print(
            f"{file} ({file.stat().st_size / 1e6:.1f} MB); open it in a browser",
            soft_wrap=True,
        )


def _titles(paths: list[Path]) -> list[str]:
    """Names of files; with their folders where the names agree."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
