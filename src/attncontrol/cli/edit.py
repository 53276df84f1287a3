"""``attncontrol edit``."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast

import typer

from attncontrol.batch import pipelines
from attncontrol.batch.edit_names import AUTO
from attncontrol.cli import changes, checks, edit_run, photos, repeat
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, command_line, console
from attncontrol.cli.records import words_of

Prompt = Annotated[
    str | None, typer.Argument(help='For example "a cat and a frog".', callback=checks.prompt)
]
To = Annotated[
    str | None,
    typer.Option(
        help="What the edited picture shall show; not needed for --region, --remove and --move.",
        callback=checks.prompt,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        help=f"What the edited picture takes from that of PROMPT: {', '.join(changes.METHODS)}; "
        "with a strength, p2p@0.5, or several, layout+blend. p2p+auto also steers both pictures as "
        "generate --method auto does. auto alone chooses by the kind of change. Default: p2p, "
        "prompt-to-prompt that leaves alone what both prompts say alike.",
        autocompletion=lambda: [AUTO, *changes.METHODS],
    ),
]
Region = Annotated[
    list[str] | None,
    typer.Option(
        help='A text for a part of the picture, repeated: "a red cat=left,top,right,bottom" in '
        "fractions of it."
    ),
]
Remove = Annotated[
    str | None,
    typer.Option(
        help="A word of PROMPT: what shows it is removed. --to says what is left, unless that is "
        "PROMPT without the word.",
        callback=checks.plain,
    ),
]
Move = Annotated[
    str | None,
    typer.Option(
        help="A word of PROMPT and how far to the right and down what shows it is moved, in widths "
        "and heights of the picture: cat=0.3,0.",
        callback=checks.plain,
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Also generate TO from the same seed unedited, and draw all in one grid, with the "
        "cells that the edited picture has of its source.",
    ),
]


@app.command(cls=PromptCommand)
def edit(
    ctx: typer.Context,
    prompt: Prompt = None,
    to: To = None,
    source: repeat.From = None,
    photo: photos.Photo = None,
    inversion: photos.Inversion = None,
    mask: photos.Mask = None,
    method: Method = None,
    region: Region = None,
    remove: Remove = None,
    move: Move = None,
    model: of.Model = "sprites",
    seeds: of.Seeds = "0-3",
    out: of.RunFolder = None,
    compare: Compare = False,
    record: of.RecordToo = False,
    steps: of.Steps = None,
    guidance: of.Guidance = None,
    negative: of.Negative = None,
    height: of.Height = None,
    width: of.Width = None,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Generate a picture of PROMPT, and from the same seed another one that differs from it in what
    is asked for alone, by editing attention; or edit a picture that exists, --photo."""
    given = SimpleNamespace(**locals())
    run, wanted = _asked(ctx, given) if source is None else _again(ctx, source)
    pipe = _opened(wanted) if wanted.method == AUTO else None
    if pipe is not None:
        run, wanted = _chosen(run, pipe)
    if wanted.chosen:
        console.print(wanted.chosen, soft_wrap=True)
    folder = out or run.folder
    done = _carried_out(run, folder, pipe)
    if as_json:
        typer.echo(json.dumps(done.model_dump(mode="json")))
    elif done.pictures:
        _say(done, folder)
    repeat.end(done)


def _say(done: Any, folder: Path) -> None:
    console.print(f"{len(done.pictures)} pictures and run.json are in {folder}/")
    if done.settings.record:
        console.print(f"attncontrol inspect {folder} --open", soft_wrap=True)


def _asked(ctx: typer.Context, given: Any) -> tuple[Any, Any]:
    """The run of the options, and its settings."""
    if given.prompt is None:
        raise typer.BadParameter("give a prompt, or --from run.json")
    change, to = changes.change(given)
    changes.require(change, given.prompt, to)
    of_pictures, numbers = photos.asked(ctx, given)
    words = _words(given.prompt, to) if given.record else None

    from attncontrol.batch.runs import EditingRun  # slow to import
    from attncontrol.batch.settings import Call, Editing, asked
    from attncontrol.verbs.about import versions

    size = given.steps, given.guidance, given.negative, given.height, given.width
    settings = asked(
        Editing, prompt=given.prompt, to=to, seeds=numbers, compare=given.compare, record=words,
        **change, **of_pictures, model=given.model, device=given.device, dtype=given.dtype,
        call=cast(Call, pipelines.call_of(given.model, *size, exact=given.photo is not None)),
    )  # fmt: skip
    command = shlex.join(command_line(ctx))
    return EditingRun(command=command, settings=settings, versions=versions()), settings


def _words(prompt: str, to: str) -> list[str]:
    """Nouns and modifiers of both prompts."""
    found = [word for text in (prompt, to) for word in words_of(text, None) or ()]
    return list(dict.fromkeys(found))


def _again(ctx: typer.Context, file: Path) -> tuple[Any, Any]:
    """The run of a ``run.json``, and its settings with all that its pipeline had."""
    from attncontrol.batch.runs import EditingRun

    run = repeat.earlier(ctx, file, EditingRun)
    settings = run.settings
    with repeat.of_file(file):
        checks.texts([settings.prompt, settings.to])
        changes.require(settings.model_dump(), settings.prompt, settings.to)
        if missing := set(settings.record or ()) - {*_words(settings.prompt, settings.to)}:
            raise typer.BadParameter(f"record names {min(missing)!r}, which no prompt has")
        pipelines.require_call(settings.model, settings.call)
        photos.require_same(settings)
    return repeat.anew(ctx, run), settings


def _carried_out(run: Any, folder: Path, pipe: Any) -> Any:
    from attncontrol.batch.resume import opened  # slow to import

    opened(folder, run)  # refused before anything is loaded
    return edit_run.carried_out(run, pipe or _opened(run.settings), folder)


def _opened(wanted: Any) -> Any:
    pipe = pipelines.opened(wanted.model, wanted.device, wanted.dtype)
    return photos.prepared(pipe) if wanted.photo else pipe


def _chosen(run: Any, pipe: Any) -> tuple[Any, Any]:
    """The run with the method that fits what its prompts change, and its settings."""
    from attncontrol.batch.edit_choice import chosen
    from attncontrol.families.known import family_of

    settings = run.settings
    given = {name: getattr(settings, name) is not None for name in ("photo", "mask")}
    method, why = chosen(settings.prompt, settings.to, pipe, family_of(pipe), **given)
    settings = settings.model_copy(update={"method": method, "chosen": why})
    return run.model_copy(update={"settings": settings}), settings
