"""Commands that make and convert attention records: ``record``, ``maps`` and ``export``."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli import checks, methods, pipelines
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, clean_errors, console

FORMATS = ("npz", "zarr", "csv", "png")
ENCODINGS = ("float32", "float16", "bfloat16", "sqrt8")


def _axes(keep: str) -> str:
    if unknown := set(keep.split(",")) - {"step", "head", ""}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from step, head")
    return keep


def _encoding(name: str) -> str:
    if name not in ENCODINGS:
        raise typer.BadParameter(f"{name!r}: choose from {', '.join(ENCODINGS)}")
    return name


Words = Annotated[
    str | None,
    typer.Option(
        help="Words, separated by commas; 'all' for every token. Default: nouns and modifiers."
    ),
]
Keep = Annotated[
    str,
    typer.Option(
        help="Axes that are kept, not averaged: step, head or both, separated by a comma.",
        callback=_axes,
    ),
]
Uncond = Annotated[
    bool,
    typer.Option("--uncond", help="Also the unconditional branch of classifier-free guidance."),
]
Encoding = Annotated[
    str, typer.Option(help=f"{', '.join(ENCODINGS)} (8 bits).", callback=_encoding)
]
Record = Annotated[
    Path,
    typer.Option(
        help="A file *.safetensors, or a folder that gets every step when it is done.",
        callback=checks.record_path,
    ),
]
File = Annotated[Path, typer.Option(help="A file *.safetensors.", callback=checks.file)]


@app.command(cls=PromptCommand)
def record(
    prompt: of.Prompt,
    words: Words = None,
    model: of.Model = "sprites",
    method: of.Method = "plain",
    box: of.Box = None,
    step_size: of.StepSize = None,
    seed: of.Seed = 0,
    steps: of.Steps = None,
    guidance: of.Guidance = None,
    negative: of.Negative = None,
    height: of.Height = None,
    width: of.Width = None,
    keep: Keep = "step,head",
    uncond: Uncond = False,
    encoding: Encoding = "float16",
    out: Record = Path("record.safetensors"),
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Generate one picture and keep what its words attended to, for attncontrol inspect."""
    boxes = checks.boxes(box)
    methods.check(method, boxes)
    stream = out.suffix != ".safetensors"
    with clean_errors():
        call = pipelines.call_of(model, steps, guidance, negative, height, width)
        pipe = pipelines.opened(model, device, dtype)
        branches = ("cond", "uncond") if uncond else ("cond",)
        options: dict[str, Any] = {"keep": _split(keep), "branches": branches}
        options |= {"to": out, "encoding": encoding} if stream else {}
        guiding = methods.steering(pipe, method, None, boxes, step_size)
        maps = _recorded(pipe, prompt, words_of(prompt, words), seed, guiding, options, call)
        if not stream:
            _save(maps, out, encoding)
    files = list(out.glob("*.safetensors")) if stream else [out]
    _report(out, maps, sum(file.stat().st_size for file in files), as_json)


def _recorded(
    pipe: Any,
    prompt: str,
    words: list[str] | None,
    seed: int,
    guiding: AbstractContextManager[Any],
    options: dict[str, Any],
    call: dict[str, Any],
) -> Any:
    """The maps of one picture, with the picture."""
    import torch

    from attncontrol.verbs.record import record

    generator = torch.Generator().manual_seed(seed)
    with guiding, record(pipe, words, **options) as maps:
        maps.pictures = pipe(prompt, generator=generator, **call).images
    return maps


def _save(maps: Any, out: Path, encoding: Any = "float32") -> None:
    from attncontrol.maps.store import save

    out.parent.mkdir(parents=True, exist_ok=True)
    save(maps, out, encoding=encoding)


def _report(out: Path, maps: Any, size: int, as_json: bool) -> None:
    if as_json:
        about = {"bytes": size, "words": maps.labels[0], "steps": len(maps.steps)}
        typer.echo(json.dumps({"record": str(out)} | about))
        return
    console.print(
        f"{out}: {len(maps.layers)} layers, {len(maps.steps)} steps, {size / 1e6:.1f} MB. "
        f"attncontrol inspect {out} --open",
        soft_wrap=True,
    )


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
            min=0,
            max=1000,
            callback=checks.finite,
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
    with clean_errors():
        from attncontrol.verbs.picture import record_picture

        pipe = pipelines.opened(model, device, dtype)
        options: dict[str, Any] = {"timestep": timestep, "seed": seed, "keep": _split(keep)}
        options |= pipelines.reading_of(model)
        found = record_picture(pipe, picture, prompt, words_of(prompt, words), **options)
        _save(found, out)
    _report(out, found, out.stat().st_size, as_json)


def _opened(image: Path) -> Any:
    """Raises typer.BadParameter for a file that is no picture."""
    from PIL import Image

    try:
        with Image.open(image) as picture:
            picture.load()
    except OSError as error:  # UnidentifiedImageError too
        raise typer.BadParameter(f"{image} is no picture that can be read ({error})") from error
    return picture


@app.command()
def export(
    path: Annotated[
        Path, typer.Argument(help="A record: a file, or a folder of steps.", exists=True)
    ],
    format: Annotated[
        str,
        typer.Option(
            help="npz, zarr, csv (statistics of every map), or png (a folder of pictures)."
        ),
    ] = "npz",
    out: Annotated[Path | None, typer.Option(help="Default: beside the record.")] = None,
    as_json: of.Json = False,
) -> None:
    """Write a record as pictures, or for another library."""
    if format not in FORMATS:
        raise typer.BadParameter(f"--format {format}: choose from {', '.join(FORMATS)}")
    target = out or path.with_suffix(".pictures" if format == "png" else f".{format}")
    with clean_errors():
        from attncontrol import export as exporting
        from attncontrol.maps.store import load

        maps = load(path)
        if format == "csv":
            exporting.to_dataframe(maps).to_csv(target, index=False)
        else:
            {"npz": exporting.to_npz, "zarr": exporting.to_zarr, "png": exporting.write_pictures}[
                format
            ](maps, target)
    if as_json:
        typer.echo(json.dumps({"file": str(target)}))
    else:
        console.print(f"{target} is written")


def words_of(prompt: str, words: str | None) -> list[str] | None:
    """Of the option ``--words``. Raises WordError if it is not given and the prompt has no noun."""
    from attncontrol.prompts.syntax import subjects_of

    if words == "all":
        return None
    if words:
        return words.split(",")
    return list(
        dict.fromkeys(
            word.text for entity in subjects_of(prompt) for word in (entity.noun, *entity.modifiers)
        )
    )


def _split(keep: str) -> tuple[Any, ...]:
    return tuple(axis for axis in keep.split(",") if axis)
