"""``attncontrol repeat``: a picture of a job again."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli import options as of
from attncontrol.cli import paths
from attncontrol.cli.app import app, console
from attncontrol.cli.failures import work
from attncontrol.errors import ResultsError

Again = Annotated[
    Path,
    typer.Argument(help="A picture that attncontrol batch made.", callback=paths.existing),
]
Same = Annotated[
    Path | None,
    typer.Option(help="Where to write it.", callback=lambda to: to and paths.picture_file(to)),
]
Own = Annotated[
    str | None,
    typer.Option(help="module:Name, if the picture was made by code of your own: it is run."),
]


@app.command()
def repeat(
    picture: Again,
    out: Same = None,
    method: Own = None,
    device: of.Device = "cpu",
    as_json: of.Json = False,
) -> None:
    """Make a picture of a job again, and compare it bit by bit: exit code 1 if it differs."""
    from attncontrol.batch.options import quiet
    from attncontrol.jobs.repeat import earlier
    from attncontrol.jobs.repeat import repeat as again

    if out is not None:
        paths.apart(out, [picture])
    before = earlier(picture)
    _require_named(before.item.method, method, picture)
    if before.others:
        console.print(f"It was made with {'; '.join(before.others)}: it may differ", soft_wrap=True)
    if before.alone:
        console.print("There is no job.json beside it, so it is made alone: it may differ a little")
    quiet()
    with work():
        found = again(before, device)
        if out is not None:
            _save(found.image, out, before.item)
    told = {"same": found.same, "difference": found.difference, "changed": found.changed}
    if as_json:
        typer.echo(json.dumps(told))
    elif found.changed:
        console.print(f"{picture} was changed since it was made", soft_wrap=True)
    else:
        differs = f"Colours differ by at most {found.difference} of 255"
        console.print("The same, bit by bit" if found.same else differs)
    if not found.same or found.changed:
        raise typer.Exit(1)


def _require_named(method: str, named: str | None, picture: Path) -> None:
    """Raises ResultsError for code of a module that the user did not name: a picture from elsewhere
    may not say what is imported."""
    if ":" in method and named != method:
        raise ResultsError(
            f"{picture} runs your own code, {method}; to say that this is meant, add --method "
            f"{method}"
        )


def _save(image: Any, out: Path, item: Any) -> None:
    from attncontrol.export.folder import is_picture, save

    save(image, out, {"item": item.model_dump(mode="json", exclude_defaults=True)}, is_picture)
