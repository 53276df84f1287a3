"""The command that writes an HTML page about a record: ``inspect``."""

import json
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli import paths
from attncontrol.cli.app import app, console
from attncontrol.cli.export import Limit, beside, loaded, partial_in
from attncontrol.cli.failures import work
from attncontrol.cli.options import Json


@app.command()
def inspect(
    record: Annotated[
        Path,
        typer.Argument(
            help="A record: a file of attncontrol.save, a folder of steps, or the folder of "
            "attncontrol edit --record.",
            callback=paths.existing,
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Argument(help="A second one, shown beside it.", callback=paths.existing),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page to write. Default: RECORD with the ending .html.",
            callback=paths.page_file,
        ),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    limit: Limit = 4.0,
    as_json: Json = False,
) -> None:
    """Write a page in which to look at a record: words over the picture, steps, layers, heads,
    agreement of modifiers."""
    target = out or beside(record, ".html")
    paths.require(target, as_folder=False, option="--out")
    paths.apart(target, [record, other])
    records = [record] if other is None else [record, other]
    from attncontrol.inspector.page import is_page, page
    from attncontrol.writing import require_free, whole

    require_free(target, is_page, inputs=records)
    maps = [_opened(path, limit) for path in records]
    text = page(*maps, titles=_titles(records))
    with work(), whole(target, is_page, inputs=records) as part:
        part.write_text(text, "utf-8")
    if open_it:
        webbrowser.open(target.resolve().as_uri())
    _report(target, records, partial_in(*maps), as_json)


def _opened(path: Path, limit: float) -> Any:
    if not (path / "run.json").is_file():
        return loaded(path, limit)
    from attncontrol.batch.edit_records import records_in

    return records_in(path, limit * 2**30)


def _report(target: Path, records: list[Path], partial: dict[str, str], as_json: bool) -> None:
    size = target.stat().st_size
    if as_json:
        made = {"file": str(target), "bytes": size, "records": [str(path) for path in records]}
        typer.echo(json.dumps(made | partial))
    else:
        console.print(f"{target} ({size / 1e6:.1f} MB); open it in a browser", soft_wrap=True)


def _titles(paths: list[Path]) -> list[str]:
    """Names of files; with their folders where the names agree."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
