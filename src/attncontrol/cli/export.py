"""The command that converts attention records: ``export``."""

import json
import math
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli import checks, paths
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console
from attncontrol.cli.failures import work

FORMATS = ("npz", "zarr", "csv", "png")
FOLDERS = ("zarr", "png")


Limit = Annotated[
    float,
    typer.Option(
        help="GiB of a record, as float32, that is still read.", callback=checks.between(0.0, 1e6)
    ),
]


@app.command()
def export(
    path: Annotated[
        Path,
        typer.Argument(
            help="A record: a file, or a folder of steps.", exists=True, callback=paths.existing
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="npz, zarr, csv (statistics of every map), or png (a folder of pictures). "
            "Default: by the ending of --out, else npz.",
            callback=checks.one_of(FORMATS),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Default: beside the record.", parser=paths.named, metavar="PATH"),
    ] = None,
    limit: Limit = 4.0,
    as_json: of.Json = False,
) -> None:
    """Write a record as pictures, or for another library."""
    chosen = format or _format_of(out)
    target = out or beside(path, ".pictures" if chosen == "png" else f".{chosen}")
    _require_fit(chosen, target)
    paths.require(target, as_folder=chosen in FOLDERS, option="--out")
    paths.apart(target, [path])
    from attncontrol.writing import require_free

    write, ours = _writers()[chosen]
    require_free(target, ours, inputs=[path])
    maps = loaded(path, limit)
    with work():
        write(maps, target)
    if as_json:
        typer.echo(json.dumps({"file": str(target)} | partial_in(maps)))
    else:
        console.print(f"{target} is written")


def _format_of(out: Path | None) -> str:
    """Raises typer.BadParameter where the name does not say it."""
    if out is None:
        return "npz"
    ending = out.suffix.lower().removeprefix(".")
    if ending not in FORMATS or ending == "png":
        raise typer.BadParameter(
            f"{out}: write a name that ends in .npz, .zarr or .csv, or --format png for a folder "
            "of pictures",
            param_hint="--out",
        )
    return ending


def _require_fit(format: str, out: Path) -> None:
    """Raises typer.BadParameter for a name that says another format."""
    ending = out.suffix.lower()
    if format != "png" and ending == f".{format}":
        return
    if format in FOLDERS and ending not in {".zarr", *paths.ENDINGS}:
        return
    what = "a folder" if format == "png" else f"a name that ends in .{format}"
    raise typer.BadParameter(f"{out}: --format {format} makes {what}", param_hint="--out")


def _writers() -> dict[str, tuple[Any, Any]]:
    """How each format is written, and known as ours."""
    from attncontrol.export import arrays, ours, sheets

    return {
        "npz": (arrays.to_npz, ours.is_npz),
        "zarr": (arrays.to_zarr, ours.is_tree),
        "csv": (arrays.to_csv, arrays.is_table),
        "png": (sheets.write_pictures, sheets.holds_sheets),
    }


def beside(record: Path, ending: str) -> Path:
    """The record's name with another ending; folders have none, so that those of ``run.v1`` and
    ``run.v2`` differ."""
    path = record if record.name not in ("", "..") else record.resolve()
    return path.with_name(f"{path.name.removesuffix('.safetensors')}{ending}")


def loaded(path: Path, limit: float = math.inf) -> Any:
    """A record of at most ``limit`` GiB; that it is partial is said in one line."""
    from attncontrol.maps.reading import load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is partial: ")
        maps = load(path, limit=limit * 2**30)
    if maps.partial:
        console.print(f"{path} is partial: {maps.partial}", soft_wrap=True)
    return maps


def partial_in(*maps: Any) -> dict[str, str]:
    """What --json says of records that are not whole."""
    found = [each.partial for each in maps if each.partial]
    return {"partial": "; ".join(found)} if found else {}
