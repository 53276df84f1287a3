"""``attncontrol generate``."""

import json
import shlex
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from attncontrol import sprites
from attncontrol.batch import pipelines
from attncontrol.batch.chosen_heads import weakening
from attncontrol.cli import checks, methods, paths, repeat
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, command_line, console
from attncontrol.cli.failures import work

Prompt = Annotated[
    str | None, typer.Argument(help='For example "a cat and a frog".', callback=checks.prompt)
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Text file, UTF-8, with one prompt per line; lines that begin with '# ' are comments.",
        exists=True,
        dir_okay=False,
    ),
]
Compare = Annotated[
    bool,
    typer.Option("--compare", help="Also generate without guidance and draw both in one grid."),
]
Heads = Annotated[
    Path | None,
    typer.Option(
        help="Heads to weaken: the result of heads search.",
        exists=True,
        dir_okay=False,
        callback=paths.heads,
    ),
]
HEADS_SCALE, STRENGTH = 3.0, 1.0
Scale = Annotated[
    float,
    typer.Option(help="With --heads: w in e + w (e - e_weakened).", callback=checks.scale),
]


@app.command(cls=PromptCommand)
def generate(
    ctx: typer.Context,
    prompt: Prompt = None,
    prompts: Prompts = None,
    source: repeat.From = None,
    method: of.Method = "attend-and-excite",
    words: of.Groups = None,
    box: of.Box = None,
    model: of.Model = "sprites",
    seeds: of.Seeds = "0-3",
    out: of.RunFolder = None,
    compare: Compare = False,
    steps: of.Steps = None,
    guidance: of.Guidance = None,
    negative: of.Negative = None,
    height: of.Height = None,
    width: of.Width = None,
    step_size: of.StepSize = None,
    heads: Heads = None,
    heads_scale: Scale = HEADS_SCALE,
    u: of.Strength = STRENGTH,
    batch: of.Batch = 4,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Generate pictures, with test-time guidance, word-map overlays and a comparison grid."""
    given = SimpleNamespace(**locals())
    run, wanted = _asked(ctx, given) if source is None else _again(ctx, source)
    folder = out or run.folder
    _told(_run(run, wanted, folder), folder, as_json)


def _told(run: Any, out: Path, as_json: bool) -> None:
    """Shows what was made, and ends with 1 if a prompt failed."""
    report = run.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(report))
    elif run.pictures:
        _show(report["pictures"], out)
    repeat.end(run)


def _asked(ctx: typer.Context, given: Any) -> tuple[Any, Any]:
    """The run of the options, and its settings."""
    lines, boxes = checks.prompts(given.prompt, given.prompts), checks.boxes(given.box)
    groups, numbers = checks.groups(given.words), checks.seeds(given.seeds)
    _check(given, lines, groups, boxes)
    if given.out:
        paths.apart(given.out / "run.json", [given.prompts, given.heads])

    from attncontrol.batch.chosen_heads import load_heads
    from attncontrol.batch.runs import GenerationRun  # slow to import
    from attncontrol.batch.settings import Call, Generation, asked
    from attncontrol.verbs.about import versions

    size = given.steps, given.guidance, given.negative, given.height, given.width
    settings = asked(
        Generation, prompts=_once(lines), seeds=numbers, batch=given.batch,
        method=given.method, words=groups, boxes=boxes,
        step_size=given.step_size, compare=given.compare,
        heads=given.heads and load_heads(given.heads), heads_scale=given.heads_scale, u=given.u,
        model=given.model, device=given.device, dtype=given.dtype,
        call=cast(Call, pipelines.call_of(given.model, *size)),
    )  # fmt: skip
    command = shlex.join(command_line(ctx))
    words = _shown(settings)
    run = GenerationRun(command=command, settings=settings, versions=versions(), words=words)
    return run, settings


def _check(given: Any, prompts: list[str], words: Any, boxes: Any) -> None:
    """Raises typer.BadParameter for options, or settings of a run, that do not fit each other."""
    plain, heads = given.method == "plain", given.heads is not None
    methods.check(given.method, boxes, words)
    checks.subjects(prompts, words, boxes)
    checks.effects("--method plain", step_size=plain and given.step_size is not None)
    checks.effects("--method plain without --heads", compare=plain and not heads and given.compare)
    checks.effects(
        "no --heads",
        heads_scale=not heads and given.heads_scale != HEADS_SCALE,
        u=not heads and given.u != STRENGTH,
    )


def _again(ctx: typer.Context, file: Path) -> tuple[Any, Any]:
    """The run of a ``run.json``, and its settings with all that its pipeline had."""
    from attncontrol.batch.runs import GenerationRun

    run = repeat.earlier(ctx, file, GenerationRun)
    settings = run.settings
    with repeat.of_file(file):
        checks.texts(settings.prompts)
        _check(settings, settings.prompts, settings.words, settings.boxes)
        if missing := [prompt for prompt in settings.prompts if prompt not in run.words]:
            raise typer.BadParameter(f"words has none for the prompt {missing[0]!r}")
        for prompt, words in run.words.items():
            checks.words_in([prompt], words)
        pipelines.require_call(settings.model, settings.call)
    return repeat.anew(ctx, run), settings


def _once(prompts: list[str]) -> list[str]:
    """Each prompt; a repeated one would be the same pictures."""
    once = list(dict.fromkeys(prompts))
    if len(once) < len(prompts):
        first = next(prompt for prompt in once if prompts.count(prompt) > 1)
        console.print(f"{first!r} is given {prompts.count(first)} times; it is made once")
    return once


def _shown(settings: Any) -> dict[str, list[str]]:
    """The words of every prompt whose maps are drawn. Raises WordError for a prompt without a
    noun."""
    from attncontrol.prompts.syntax import nouns

    given = list(settings.boxes) or [group[-1] for group in settings.words or []]
    return {prompt: given or list(nouns(prompt)) for prompt in settings.prompts}


def _run(run: Any, wanted: Any, out: Path) -> Any:
    """Makes the pictures that ``out`` lacks; ``run`` as it then is. ``wanted`` are its settings,
    with the scheduler and the parameters of the method where an earlier run tells them."""
    from attncontrol.batch.resume import carry_out, opened

    opened(out, run)  # refused before anything is loaded
    pipe = pipelines.opened(wanted.model, wanted.device, wanted.dtype)
    guidance = _guidance(pipe, wanted)
    numbers = methods.parameters(guidance["objective"], guidance["descent"])
    settings = repeat.complete(pipe, wanted, parameters=numbers)
    run = run.model_copy(update={"settings": settings})
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    text = TextColumn("{task.description}", markup=False)
    with work(), Progress(text, *columns, console=console) as bar:
        task = bar.add_task("generating", total=len(settings.order))

        def progress(units: Any) -> Any:
            for unit in units:
                bar.update(task, description=unit.prompt)
                yield unit
                bar.advance(task, len(settings.pictures(unit)))

        return carry_out(run, out, partial(_made, pipe, run, guidance, out), progress)


def _made(pipe: Any, run: Any, guidance: dict[str, Any], out: Path, unit: Any) -> list[Any]:
    """The pictures of a unit, written."""
    from attncontrol.batch.generate import generate as pictures_of
    from attncontrol.batch.runs import Generated
    from attncontrol.export.folder import write
    from attncontrol.sprites.scorer import detect

    settings, words = run.settings, run.words[unit.prompt]
    jobs = [(unit.prompt, seed) for seed in unit.seeds]
    made = {}
    for arm in settings.arms:
        options = dict(settings.call) | (guidance if arm != "plain" else {})
        made[arm] = [*pictures_of(pipe, jobs, words, method=arm, batch=len(jobs), **options)]
    about = settings.model_dump(mode="json", exclude={"prompts", "seeds"})
    scorer = detect if settings.model in sprites.MODELS else None
    told = {"settings": about, "versions": run.versions}
    rows = write(out, unit.prompt, words, made, scorer, settings.boxes, told)
    return [Generated(**row) for row in rows]


def _guidance(pipe: Any, settings: Any) -> dict[str, Any]:
    """Options of ``batch.generate`` for the guided arm."""
    objective, descent = methods.objective(
        settings.method, settings.words, settings.boxes, settings.step_size
    )
    return {"objective": objective, "descent": descent, "around": weakening(pipe, settings)}


def _show(report: list[dict[str, Any]], out: Path) -> None:
    """One line per prompt and seed: what each method shows, or the seconds it took where no scorer
    knows."""
    arms = list(dict.fromkeys(row["method"] for row in report))
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for row in report:
        found = (
            f"{row['seconds']:.1f} s"
            if row["found"] is None
            else ", ".join(row["found"]) or "nothing"
        )
        cells.setdefault((row["prompt"], row["seed"]), {})[row["method"]] = found
    table = Table("prompt", "seed", *arms)
    for (prompt, seed), found_by in cells.items():
        table.add_row(prompt, str(seed), *(found_by.get(arm, "") for arm in arms))
    console.print(table)
    console.print(f"Pictures, maps and run.json, which repeats it, are in {out}/")
