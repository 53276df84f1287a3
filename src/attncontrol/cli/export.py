"""The command that converts attention records: ``export``."""

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli import options as of
from attncontrol.cli import paths
from attncontrol.cli.app import app, console

FORMATS = ("npz", "zarr", "csv", "png")


@app.command()
def export(
    path: Annotated[
        Path,
        typer.Argument(
            help="A record: a file, or a folder of steps.", exists=True, callback=paths.existing
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="npz, zarr, csv (statistics of every map), or png (a folder of pictures)."
        ),
    ] = "npz",
    out: Annotated[
        Path | None,
        typer.Option(help="Default: beside the record.", parser=paths.named, metavar="PATH"),
    ] = None,
    as_json: of.Json = False,
) -> None:
    """Write a record as pictures, or for another library."""
    if format not in FORMATS:
        raise typer.BadParameter(f"--format {format}: choose from {', '.join(FORMATS)}")
    target = out or beside(path, ".pictures" if format == "png" else f".{format}")
    paths.require(target, as_folder=format in ("png", "zarr"), option="--out")
    paths.apart(target, [path])
    from attncontrol import export as exporting

    maps = loaded(path)
    {
        "npz": exporting.to_npz,
        "zarr": exporting.to_zarr,
        "csv": exporting.to_csv,
        "png": exporting.write_pictures,
    }[format](maps, target)
    if as_json:
        typer.echo(json.dumps({"file": str(target)} | partial_in(maps)))
    else:
        console.print(f"{target} is written")


def beside(record: Path, ending: str) -> Path:
    """The record's name with another ending; folders have none, so that those of ``run.v1`` and
    ``run.v2`` differ."""
    path = record if record.name not in ("", "..") else record.resolve()
    return path.with_name(f"{path.name.removesuffix('.safetensors')}{ending}")


def loaded(path: Path) -> Any:
    """A record; that it is partial is said in one line."""
    from attncontrol.maps.reading import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is partial: ")
        maps = load(path)
    if maps.partial:
        console.print(f"{path} is partial: {maps.partial}", soft_wrap=True)
    return maps


def partial_in(*maps: Any) -> dict[str, str]:
    """What --json says of records that are not whole."""
    found = [each.partial for each in maps if each.partial]
    return {"partial": "; ".join(found)} if found else {}
