"""``attncontrol generate``."""

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from attncontrol import sprites
from attncontrol.cli import checks, methods, paths, pipelines
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, clean_errors, command_line, console

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
Scale = Annotated[
    float,
    typer.Option(help="With --heads: w in e + w (e - e_weakened).", callback=checks.scale),
]


@dataclass(frozen=True)
class Settings:
    """What to make, as it was asked for."""

    prompts: list[str]
    seeds: list[int]
    method: str
    words: list[list[str]] | None
    boxes: dict[str, checks.Box]
    step_size: float | None
    heads: Path | None
    heads_scale: float
    u: float
    compare: bool
    batch: int
    model: str
    device: str
    dtype: str
    call: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        """What is made of every prompt and seed: plain, guided, or both."""
        parts = [self.method] if self.method != "plain" else []
        guided = "+".join([*parts, "heads"] if self.heads else parts) or "plain"
        return ["plain", guided] if self.compare and guided != "plain" else [guided]


@app.command(cls=PromptCommand)
def generate(
    ctx: typer.Context,
    prompt: Prompt = None,
    prompts: Prompts = None,
    method: of.Method = "attend-and-excite",
    words: of.Groups = None,
    box: of.Box = None,
    model: of.Model = "sprites",
    seeds: of.Seeds = "0-3",
    out: of.Folder = Path("attncontrol-out"),
    compare: Compare = False,
    steps: of.Steps = None,
    guidance: of.Guidance = None,
    negative: of.Negative = None,
    height: of.Height = None,
    width: of.Width = None,
    step_size: of.StepSize = None,
    heads: Heads = None,
    heads_scale: Scale = 3.0,
    u: of.Strength = 1.0,
    batch: of.Batch = 4,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Generate pictures, with test-time guidance, word-map overlays and a comparison grid."""
    lines, numbers = checks.prompts(prompt, prompts), checks.seeds(seeds)
    boxes, groups = checks.boxes(box), checks.groups(words)
    methods.check(method, boxes, groups)
    checks.subjects(lines, groups, boxes)
    paths.apart(out / "run.json", [prompts, heads])
    with clean_errors():
        call = pipelines.call_of(model, steps, guidance, negative, height, width)
        settings = Settings(lines, numbers, method, groups, boxes, step_size, heads, heads_scale,
                            u, compare, batch, model, device, dtype, call)  # fmt: skip
        result = _run(settings, out, shlex.join(command_line(ctx)))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _show(result["pictures"], out)


def _run(settings: Settings, out: Path, command: str) -> dict[str, Any]:
    """Makes the pictures and writes them; returns the report, which is run.json too."""
    from attncontrol.verbs.about import versions

    pipe = pipelines.opened(settings.model, settings.device, settings.dtype)
    words = _shown(settings)
    out.mkdir(parents=True, exist_ok=True)
    report = {
        "command": command,
        "settings": _written(settings, pipe),
        "versions": versions(),
        "words": words,
        "pictures": _make(pipe, settings, words, out),
    }
    (out / "run.json").write_text(json.dumps(report, indent=1), "utf-8")
    return report


def _shown(settings: Settings) -> dict[str, list[str]]:
    """The words of every prompt whose maps are drawn. Raises WordError for a prompt without a
    noun."""
    from attncontrol.prompts.syntax import nouns

    given = list(settings.boxes) or [group[-1] for group in settings.words or []]
    return {prompt: given or list(nouns(prompt)) for prompt in settings.prompts}


def _written(settings: Settings, pipe: Any) -> dict[str, Any]:
    """All that is needed to repeat the run."""
    weakening = (
        {"heads": _heads(settings.heads), "heads_scale": settings.heads_scale, "u": settings.u}
        if settings.heads
        else {}
    )
    return {
        "model": settings.model,
        "dtype": settings.dtype,
        "device": settings.device,
        "seeds": settings.seeds,
        "batch": settings.batch,
        "call": settings.call,
        "scheduler": json.loads(pipe.scheduler.to_json_string()),
        "method": settings.method,
        "words": settings.words,
        "boxes": settings.boxes,
        "step_size": settings.step_size,
    } | weakening


def _make(
    pipe: Any, settings: Settings, words: Mapping[str, list[str]], out: Path
) -> list[dict[str, Any]]:
    """Pictures prompt by prompt, written as soon as a prompt is done; one record each."""
    from attncontrol.batch.generate import generate as pictures_of
    from attncontrol.export.folder import write
    from attncontrol.sprites.scorer import detect

    guidance, report = _guidance(pipe, settings), []
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(TextColumn("{task.description}", markup=False), *columns, console=console) as bar:
        total = len(settings.prompts) * len(settings.seeds) * len(settings.arms)
        task = bar.add_task("generating", total=total)
        for prompt in settings.prompts:
            jobs, made = [(prompt, seed) for seed in settings.seeds], dict[str, list[Any]]()
            for arm in settings.arms:
                bar.update(task, description=f"{arm}: {prompt}")
                options = settings.call | (guidance if arm != "plain" else {})
                for picture in pictures_of(
                    pipe, jobs, words[prompt], method=arm, batch=settings.batch, **options
                ):
                    made.setdefault(arm, []).append(picture)
                    bar.advance(task)
            scorer = detect if settings.model in sprites.MODELS else None
            report += write(out, prompt, words[prompt], made, scorer, settings.boxes)
    return report


def _guidance(pipe: Any, settings: Settings) -> dict[str, Any]:
    """Options of ``batch.generate`` for the guided arm."""
    objective, descent = methods.objective(
        settings.method, settings.words, settings.boxes, settings.step_size
    )
    return {"objective": objective, "descent": descent, "around": _weakening(pipe, settings)}


def _weakening(pipe: Any, settings: Settings) -> Callable[[], AbstractContextManager[Any]]:
    if settings.heads is None:
        return nullcontext
    from attncontrol.edits.soft_identity import SoftIdentity
    from attncontrol.verbs.perturb import perturb

    heads, edit = _heads(settings.heads), SoftIdentity(settings.u)
    return partial(perturb, pipe, edit, scale=settings.heads_scale, heads=heads)


def _heads(file: Path) -> Any:
    from attncontrol.batch.chosen_heads import load_heads

    return load_heads(file)


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
        table.add_row(prompt, str(seed), *(found_by[arm] for arm in arms))
    console.print(table)
    console.print(f"Pictures, maps and run.json, which repeats it, are in {out}/")
