"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from attncontrol import sprites
from attncontrol.cli import checks, methods, paths

Prompt = Annotated[
    str, typer.Argument(help='For example "a cat and a frog".', callback=checks.prompt)
]
Model = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(sprites.MODELS)} (bundled), a local pipeline folder, or a hub id.",
        callback=checks.model,
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...", callback=checks.device)]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.", callback=checks.dtype)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]

Method = Annotated[
    str,
    typer.Option(
        help=f"How to guide: {', '.join(methods.names('words'))}; with --box: "
        f"{', '.join(methods.names('layout'))}; plain for not at all; or a loss of your own, "
        "module:Name.",
        autocompletion=lambda: [*methods.names(), "plain"],
    ),
]
Groups = Annotated[
    str | None,
    typer.Option(
        help="Subjects, separated by commas; modifiers before a '+': red+car. "
        "Default: by the parse.",
        callback=checks.plain,
    ),
]
Box = Annotated[
    list[str] | None,
    typer.Option(
        help="For layout methods, repeated: word=left,top,right,bottom in fractions of the picture."
    ),
]
StepSize = Annotated[
    str | None,
    typer.Option(
        help="Step size of the guidance, or how far it moves a picture: 6%. "
        "Default: measured for the model family.",
        callback=checks.step_size,
    ),
]

Seeds = Annotated[str, typer.Option(help="For example 0-7 or 1,5,9.")]
Seed = Annotated[int, typer.Option(help="Of the noise.", min=0, max=2**64 - 1)]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Denoising steps. Default: 25 for the bundled models, else 50.", min=1, max=1000
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Classifier-free guidance scale, off at 1 and below. Default for sprites: 2.",
        callback=checks.scale,
    ),
]
Negative = Annotated[
    str | None,
    typer.Option(help="Negative prompt; needs a guidance scale above 1.", callback=checks.plain),
]
Height = Annotated[
    int | None, typer.Option(help="Pixels. Default: of the model.", callback=checks.pixels)
]
Width = Annotated[
    int | None, typer.Option(help="Pixels. Default: of the model.", callback=checks.pixels)
]
Batch = Annotated[int, typer.Option(help="Pictures per pipeline call.", min=1, max=10_000)]
Folder = Annotated[
    Path,
    typer.Option(help="Output folder.", callback=paths.folder, parser=paths.named, metavar="PATH"),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        help="Output folder. Default: one in attncontrol-out/ for every command with its settings.",
        callback=lambda path: path and paths.folder(path),
        parser=paths.named,
        metavar="PATH",
        show_default=False,
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        help="How much of the heads becomes the identity (SoftPAG), 0 to 1.", callback=checks.unit
    ),
]
RecordToo = Annotated[
    bool,
    typer.Option(
        "--record",
        help="Also keep what the words attended to in both pictures, and what the edited one took "
        "over, for attncontrol inspect FOLDER.",
    ),
]
