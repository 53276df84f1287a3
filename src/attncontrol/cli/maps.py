"""``attncontrol maps``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli import checks, paths, pipelines
from attncontrol.cli import options as of
from attncontrol.cli.app import app, clean_errors
from attncontrol.cli.records import Keep, Words, axes_of, report, save_record, words_of

File = Annotated[Path, typer.Option(help="A file *.safetensors.", callback=paths.record_file)]


@app.command()
def maps(
    image: Annotated[
        Path, typer.Argument(help="A picture that exists.", exists=True, dir_okay=False)
    ],
    prompt: Annotated[str, typer.Option(help="What it shows.", callback=checks.prompt)],
    words: Words = None,
    model: of.Model = "sprites",
    timestep: Annotated[
        float,
        typer.Option(
            help="Noise that is added, 0 to 1000; objects are found best near 300.",
            callback=checks.between(0.0, 1000.0),
        ),
    ] = 300.0,
    seed: of.Seed = 0,
    keep: Keep = "head",
    out: File = Path("record.safetensors"),
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Record what the words of a prompt attend to in a real picture: encoded, noised, seen by the
    model once."""
    picture = _opened(image)
    paths.apart(out, [image])
    named = words_of(prompt, words)
    with clean_errors():
        from attncontrol.verbs.picture import record_picture

        pipe = pipelines.opened(model, device, dtype)
        options: dict[str, Any] = {"timestep": timestep, "seed": seed, "keep": axes_of(keep)}
        options |= pipelines.reading_of(model)
        found = record_picture(pipe, picture, prompt, named, **options)
        save_record(found, out)
    report(out, found, out.stat().st_size, as_json)


def _opened(image: Path) -> Any:
    """Raises typer.BadParameter for a file that is no picture."""
    from PIL import Image

    try:
        with Image.open(image) as picture:
            picture.load()
    except (OSError, Image.DecompressionBombError) as error:
        raise typer.BadParameter(f"{image} is no picture that can be read ({error})") from error
    return picture
