"""``attncontrol edit``."""

import json
import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from attncontrol.cli import checks, pipelines
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, clean_errors, command_line, console

EDITS = {"replace": "Replace", "mutual": "MutualAttention"}
"""Edits that take attention from a source picture: --method, and the class in attncontrol.edits."""

To = Annotated[
    str, typer.Option(help="What the edited picture shall show.", callback=checks.prompt)
]
Method = Annotated[
    str,
    typer.Option(
        help="What the edited picture takes from that of PROMPT: replace, its attention to the "
        "words (prompt-to-prompt), or mutual, the keys "
        "and values of its self-attention (MasaCtrl).",
        autocompletion=lambda: list(EDITS),
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare", help="Also generate the second prompt unedited and draw all in one grid."
    ),
]


@dataclass(frozen=True)
class Settings:
    """What to make, as it was asked for."""

    prompt: str
    to: str
    method: str
    seeds: list[int]
    compare: bool
    model: str
    device: str
    dtype: str
    call: dict[str, Any]


@app.command(cls=PromptCommand)
def edit(
    ctx: typer.Context,
    prompt: of.Prompt,
    to: To,
    method: Method = "replace",
    model: of.Model = "sprites",
    seeds: of.Seeds = "0-3",
    out: of.Folder = Path("attncontrol-edit"),
    compare: Compare = False,
    steps: of.Steps = None,
    guidance: of.Guidance = None,
    negative: of.Negative = None,
    height: of.Height = None,
    width: of.Width = None,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Generate a picture of PROMPT and one of another prompt that keeps its layout, by editing
    attention while both are drawn from the same seed."""
    if method not in EDITS:
        raise typer.BadParameter(
            f"{method!r}: choose from {', '.join(EDITS)}", param_hint="--method"
        )
    with clean_errors():
        call = pipelines.call_of(model, steps, guidance, negative, height, width)
        settings = Settings(
            prompt, to, method, checks.seeds(seeds), compare, model, device, dtype, call
        )
        result = _run(settings, out, shlex.join(command_line(ctx)))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        console.print(f"{len(result['pictures'])} pictures and run.json are in {out}/")


def _run(settings: Settings, out: Path, command: str) -> dict[str, Any]:
    """Makes the pictures and writes them; returns the report, which is run.json too."""
    from attncontrol.verbs.about import versions

    pipe = pipelines.opened(settings.model, settings.device, settings.dtype)
    made = _make(pipe, settings)
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "command": command,
        "settings": vars(settings) | {"scheduler": json.loads(pipe.scheduler.to_json_string())},
        "versions": versions(),
        "pictures": _write(made, settings, out),
    }
    (out / "run.json").write_text(json.dumps(report, indent=1), "utf-8")
    return report


def _make(pipe: Any, settings: Settings) -> dict[str, list[Any]]:
    """Pictures by role, in the order of the seeds."""
    from attncontrol.batch.generate import generate

    made: dict[str, list[Any]] = {"source": [], settings.method: []}
    if settings.compare:
        made["plain"] = []
    for seed in track(settings.seeds, "editing", console=console):
        pair = [(settings.prompt, seed), (settings.to, seed)]  # one call: the source and its edit
        around = partial(_editing, pipe, settings.method)
        source, edited = generate(pipe, pair, None, around=around, batch=2, **settings.call)
        made["source"].append(source)
        made[settings.method].append(edited)
        if settings.compare:
            made["plain"] += generate(pipe, pair[1:], None, **settings.call)
    return made


def _editing(pipe: Any, method: str) -> AbstractContextManager[Any]:
    from attncontrol import edits
    from attncontrol.verbs.edit import edit

    return edit(pipe, getattr(edits, EDITS[method])())


def _write(made: dict[str, list[Any]], settings: Settings, out: Path) -> list[dict[str, Any]]:
    """Pictures and, to compare, a grid of them; returns one record per picture."""
    from attncontrol.export.folder import stem_of
    from attncontrol.maps.draw import grid

    records = []
    for role, pictures in made.items():
        for picture in pictures:
            file = f"{stem_of(picture.prompt)}.{role}.{picture.seed}.png"
            picture.image.save(out / file)
            records.append(
                {
                    "role": role,
                    "prompt": picture.prompt,
                    "seed": picture.seed,
                    "seconds": picture.seconds,
                    "file": file,
                }
            )
    if settings.compare:
        rows = {
            f"{role}: {pictures[0].prompt}": [picture.image for picture in pictures]
            for role, pictures in made.items()
        }
        columns = [f"seed {seed}" for seed in settings.seeds]
        file = f"{stem_of(settings.to)}.compare.png"
        grid(rows, columns, title=f"{settings.prompt} -> {settings.to}").save(out / file)
    return records
