"""Commands that make and convert attention records: ``record``, ``maps`` and ``export``."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli.app import Json, Model, app, clean_errors, console

FORMATS = ("npz", "zarr", "csv", "png")
Words = Annotated[
    str | None,
    typer.Option(
        help="Words, separated by commas; 'all' for every token. Default: nouns and modifiers."
    ),
]
Keep = Annotated[
    str,
    typer.Option(
        help="Axes that are kept, not averaged: step, head or both, separated by a comma."
    ),
]


@app.command()
def record(
    prompt: str,
    words: Words = None,
    model: Model = "sprites",
    method: Annotated[
        str, typer.Option(help="Guidance during the run, for example attend-and-excite.")
    ] = "plain",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    steps: Annotated[
        int | None,
        typer.Option(help="Denoising steps. Default: 25 for the bundled models, else 50.", min=1),
    ] = None,
    keep: Keep = "step,head",
    uncond: Annotated[
        bool,
        typer.Option("--uncond", help="Also the unconditional branch of classifier-free guidance."),
    ] = False,
    encoding: Annotated[
        str, typer.Option(help="float32, float16, bfloat16 or sqrt8 (8 bits).")
    ] = "float16",
    out: Annotated[
        Path,
        typer.Option(
            help="A file *.safetensors, or a folder that gets every step when it is done."
        ),
    ] = Path("record.safetensors"),
    as_json: Json = False,
) -> None:
    """Generate one picture and keep what its words attended to; look at it with ``attncontrol
    inspect``."""
    with clean_errors():
        import torch

        from attncontrol import losses, sprites
        from attncontrol.batch import generate as engine
        from attncontrol.maps.store import save
        from attncontrol.verbs.record import record as recording
        from attncontrol.verbs.steer import steer

        if encoding not in ("float32", "float16", "bfloat16", "sqrt8"):
            raise typer.BadParameter(
                f"--encoding {encoding}: choose from float32, float16, bfloat16, sqrt8"
            )
        known = [name for name, needs in losses.methods().items() if needs == "words"]
        if ":" not in method and method not in (*known, "plain"):
            raise typer.BadParameter(f"--method {method}: choose from {', '.join(known)}, plain")
        pipe = engine.load(model)
        pipe.set_progress_bar_config(disable=True)
        call: dict[str, Any] = {"num_inference_steps": 50} | dict(sprites.CALL.get(model, {}))
        call |= {} if steps is None else {"num_inference_steps": steps}
        options: dict[str, Any] = {
            "keep": _axes(keep),
            "branches": ("cond", "uncond") if uncond else ("cond",),
        }
        stream = out.suffix != ".safetensors"
        if stream:
            options |= {"to": out, "encoding": encoding}
        with ExitStack() as stack:
            if method != "plain":
                stack.enter_context(steer(pipe, losses.method(method)))
            maps = stack.enter_context(recording(pipe, words_of(prompt, words), **options))
            maps.pictures = pipe(
                prompt, generator=torch.Generator().manual_seed(seed), **call
            ).images
        if not stream:
            save(maps, out, encoding=encoding)  # type: ignore[arg-type]  # checked
    files = list(out.glob("*.safetensors")) if stream else [out]
    size = sum(file.stat().st_size for file in files)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "record": str(out),
                    "bytes": size,
                    "words": maps.labels[0],
                    "steps": len(maps.steps),
                }
            )
        )
    else:
        console.print(
            f"{out}: {len(maps.layers)} layers, {len(maps.steps)} steps, {size / 1e6:.1f} MB. attncontrol inspect {out} --open"
        )


@app.command()
def maps(
    image: Annotated[
        Path, typer.Argument(help="A picture that exists.", exists=True, dir_okay=False)
    ],
    prompt: Annotated[str, typer.Option(help="What it shows.")],
    words: Words = None,
    model: Model = "sprites",
    timestep: Annotated[
        float,
        typer.Option(
            help="Noise that is added, 0 to 1000; objects are found best near 300.", min=0, max=1000
        ),
    ] = 300.0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    keep: Keep = "head",
    out: Annotated[Path, typer.Option(help="A file *.safetensors.")] = Path("record.safetensors"),
    as_json: Json = False,
) -> None:
    """Record what the words of a prompt attend to in a real picture: encoded, noised, seen by the
    model once."""
    with clean_errors():
        from PIL import Image

        from attncontrol import sprites
        from attncontrol.batch import generate as engine
        from attncontrol.maps.store import save
        from attncontrol.verbs.picture import record_picture

        pipe = engine.load(model)
        call = {
            key: value
            for key, value in sprites.CALL.get(model, {}).items()
            if key == "max_sequence_length"
        }
        with Image.open(image) as picture:
            found = record_picture(
                pipe,
                picture,
                prompt,
                words_of(prompt, words),
                timestep=timestep,
                seed=seed,
                keep=_axes(keep),
                **call,
            )
        save(found, out)
    if as_json:
        typer.echo(
            json.dumps({"record": str(out), "bytes": out.stat().st_size, "words": found.labels[0]})
        )
    else:
        console.print(f"{out}: {len(found.layers)} layers, {out.stat().st_size / 1e6:.1f} MB")


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
    as_json: Json = False,
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


def _axes(keep: str) -> tuple[Any, ...]:
    axes = tuple(axis for axis in keep.split(",") if axis)
    if unknown := set(axes) - {"step", "head"}:
        raise typer.BadParameter(f"--keep {', '.join(unknown)}: choose from step, head")
    return axes
