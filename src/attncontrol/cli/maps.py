"""``attncontrol maps``."""

import json
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.batch import pipelines
from attncontrol.cli import checks, paths, pictures
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console
from attncontrol.cli.failures import told, work
from attncontrol.cli.records import (
    Keep,
    Words,
    axes_of,
    report,
    require_place,
    save_record,
    words_of,
)
from attncontrol.writing import require_free, whole

Pictures = Annotated[
    list[str],
    typer.Argument(help="Files, folders, or patterns such as 'photos/*.jpg'."),
]
Shown = Annotated[str, typer.Option(help="What they show.", callback=checks.prompt)]
Timestep = Annotated[
    float,
    typer.Option(
        help="Noise that is added, 0 to 1000; objects are found best near 300.",
        callback=checks.between(0.0, 1000.0),
    ),
]
Limit = Annotated[
    float,
    typer.Option(
        help="Million pixels of a picture that is still read.", callback=checks.between(0.0, 1e5)
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Of one picture: a file *.safetensors. Of several: a folder, which gets a record for "
        "each and maps.json. Default: record.safetensors, or attncontrol-maps.",
        parser=paths.named,
        metavar="PATH",
    ),
]
READINGS = ("mean", "along-edges")


def _tables(wanted: bool) -> bool:
    if wanted and find_spec("pandas") is None:
        raise typer.BadParameter("tables are written by pandas: pip install attncontrol[arrays]")
    return wanted


Reading = Annotated[
    str | None,
    typer.Option(
        help="Also draw the maps over each picture, beside its record: mean, or along-edges, which "
        "follows the edges of the picture and finds objects best.",
        callback=checks.one_of(READINGS),
    ),
]
Statistics = Annotated[
    bool,
    typer.Option(
        "--csv",
        help="Also a table of statistics of every map beside each record.",
        callback=_tables,
    ),
]


@app.command()
def maps(
    images: Pictures,
    prompt: Shown,
    words: Words = None,
    model: of.Model = "sprites",
    timestep: Timestep = 300.0,
    seed: of.Seed = 0,
    keep: Keep = "head",
    limit: Limit = 100.0,
    csv: Statistics = False,
    reading: Reading = None,
    out: Out = None,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Record what the words of a prompt attend to in real pictures: made as small as those of the
    model, encoded, noised, seen by the model once.

    Of several, one that cannot be read is reported and stops nothing; the exit code is then 1.
    """
    files = pictures.found(images)
    places = _places(files, out)
    one = pictures.opened(files[0], limit) if len(files) == 1 else None
    named = words_of(prompt, words)
    _require_free(places, files, csv=csv, reading=reading)
    pipe = pipelines.opened(model, device, dtype)
    options: dict[str, Any] = {"timestep": timestep, "seed": seed, "keep": axes_of(keep)}
    options |= pipelines.reading_of(model)
    extras = partial(_beside, csv=csv, reading=reading)
    make = partial(_made, pipe, prompt=prompt, words=named, extras=extras, options=options)
    with work():
        if one is not None:
            found = make(one, places[0])
            report(places[0], found, places[0].stat().st_size, as_json)
        else:
            done = list(_each(make, files, places, limit))
            _report_all(done, places[0].parent, as_json)


def _report_all(done: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    """Writes maps.json; the exit code is 1 if a picture is missing."""
    with whole(folder / "maps.json", ours=_is_index) as part:
        part.write_text(json.dumps(done, indent=1), "utf-8")
    failed = sum("error" in each for each in done)
    if as_json:
        typer.echo(json.dumps(done))
    else:
        count = f"{len(done) - failed} of {len(done)} pictures"
        console.print(f"{count}: records and maps.json are in {folder}/", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _places(files: list[Path], out: Path | None) -> list[Path]:
    """Where the record of every picture goes. Raises typer.BadParameter where it cannot."""
    if len(files) == 1 and (out is None or out.suffix == ".safetensors"):
        places = [out or Path("record.safetensors")]
        paths.require(places[0], as_folder=False, option="--out")
    else:
        folder = out or Path("attncontrol-maps")
        if folder.suffix and folder.suffix in (".safetensors", *pictures.ENDINGS):
            raise typer.BadParameter(
                f"{folder}: the records of {len(files)} picture(s) go into a folder, that of one "
                "picture into a file *.safetensors",
                param_hint="--out",
            )
        paths.require(folder, as_folder=True, option="--out")
        places = [folder / f"{stem}.safetensors" for stem in pictures.stems(files)]
    for place in places:
        for made in (place, place.with_suffix(".maps.png")):
            paths.apart(made, files)
    return places


def _require_free(places: list[Path], files: list[Path], *, csv: bool, reading: str | None) -> None:
    """Raises WriteError for what another program made, before the model is loaded."""
    from attncontrol.export.arrays import is_table
    from attncontrol.export.folder import is_picture

    for place in places:
        require_place(place, *files)
        if csv:
            require_free(place.with_suffix(".csv"), is_table, inputs=files)
        if reading:
            require_free(place.with_suffix(".maps.png"), is_picture, inputs=files)
    if len(files) > 1:
        require_free(places[0].parent / "maps.json", _is_index)


def _each(
    make: Any, files: list[Path], places: list[Path], limit: float
) -> Iterator[dict[str, Any]]:
    """The entries of maps.json: what was made of every picture, or why nothing was."""
    for file, place in zip(files, places, strict=True):
        try:
            found = make(pictures.opened(file, limit), place)
        except Exception as error:
            console.print(told(error), soft_wrap=True)
            yield {"picture": str(file), "error": told(error)}
        else:
            size = found.pictures[0].size
            yield {
                "picture": str(file), "record": place.name, "words": list(found.labels[0]),
                "width": size[0], "height": size[1],
            }  # fmt: skip


def _made(
    pipe: Any, picture: Any, place: Path, *, prompt: str, words: Any, extras: Any, options: Any
) -> Any:
    """The maps of one picture, saved."""
    from attncontrol.verbs.picture import record_picture

    found = record_picture(pipe, picture, prompt, words, **options)
    save_record(found, place)
    extras(found, place)
    return found


def _beside(found: Any, place: Path, *, csv: bool, reading: str | None) -> None:
    """The table and the drawing of a record."""
    if csv:
        from attncontrol.export import to_csv

        to_csv(found, place.with_suffix(".csv"))
    if reading:
        from attncontrol.export.folder import is_picture, save

        about = {"prompt": found.prompts[0], "reading": reading}
        save(_drawn(found, reading), place.with_suffix(".maps.png"), about, is_picture)


def _drawn(found: Any, reading: str) -> Any:
    """The picture, and the map of every word over it."""
    import numpy as np

    from attncontrol.analysis.edges import along_edges
    from attncontrol.maps.draw import grid, overlay

    picture, words = found.pictures[0], found.mean()[0].movedim(-1, 0)
    if reading == "along-edges":
        words = along_edges(words, np.asarray(picture))
    rows = {
        word: [overlay(picture, each)] for word, each in zip(found.labels[0], words, strict=True)
    }
    return grid({"picture": [picture]} | rows, [reading], title=found.prompts[0])


def _is_index(file: Path) -> bool:
    try:
        return all("picture" in each for each in json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return False
