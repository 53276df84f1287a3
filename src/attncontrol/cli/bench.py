"""``attncontrol bench``."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol import sprites
from attncontrol.bench.suites import SUITES
from attncontrol.cli import checks, methods, paths, pipelines
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console, optional_chart
from attncontrol.cli.failures import work


def _suite(name: str) -> str:
    if name not in SUITES:
        raise typer.BadParameter(f"{name!r}: choose from {', '.join(SUITES)}")
    return name


def _scored(model: str) -> str:
    if model not in sprites.MODELS:
        raise typer.BadParameter(
            f"{model!r}: pictures can be scored for {', '.join(sprites.MODELS)} only"
        )
    return model


Suite = Annotated[str, typer.Option(help=f"{', '.join(SUITES)}.", callback=_suite)]
Methods = Annotated[
    str | None,
    typer.Option(
        help=f"Separated by commas: {', '.join(methods.names('words'))}; for the suite layout: "
        f"{', '.join(methods.names('layout'))}. Default: all that fit the suite.",
        callback=checks.names,
    ),
]
Model = Annotated[str, typer.Option(help=f"{', '.join(sprites.MODELS)}.", callback=_scored)]
Every = Annotated[int, typer.Option(help="Every n-th of the 276 prompts.", min=1, max=276)]
StepSizes = Annotated[
    list[str] | None,
    typer.Option(help="method=size, repeated. Default: that of the method."),
]
Refinements = Annotated[
    int | None,
    typer.Option(
        help="Largest number at a step; 0 for none. Default: that of the method.", min=0, max=1000
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="Output folder; a run that was interrupted goes on here.",
        callback=paths.folder,
        parser=paths.named,
        metavar="PATH",
    ),
]


@app.command()
def bench(
    suite: Suite = "pairs",
    methods: Methods = None,
    model: Model = "sprites",
    seeds: of.Seeds = "0-3",
    every: Every = 1,
    step_size: StepSizes = None,
    refinements: Refinements = None,
    batch: of.Batch = 8,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    out: Out = Path("attncontrol-bench"),
    as_json: of.Json = False,
) -> None:
    """Compare methods on a bundled model, from the same seeds: a table, a chart, and one line per
    picture.

    Columns: shares of pictures that show all nouns (present), in their colours (bound), in their
    boxes (iou, inside), the scorer's confidence, each with its gain over plain and a 95 % interval;
    time and memory are multiples of plain.
    """
    chosen = _chosen(methods, suite)
    options: dict[str, Any] = {"every": every, "refinements": refinements, "batch": batch}
    options |= {"step_sizes": _step_sizes(step_size, chosen)}
    numbers = checks.seeds(seeds)
    from attncontrol.bench.compare import run
    from attncontrol.bench.summary import markdown, require_place, summary, write

    require_place(out, suite)
    pipe = pipelines.opened(model, device, dtype)
    call = pipelines.call_of(model)
    options |= {"progress": _progress}
    with work():
        lines = summary(run(pipe, suite, chosen, numbers, out / "pictures.csv", **options, **call))
        with optional_chart():
            write(lines, suite, out)
    typer.echo(json.dumps(lines) if as_json else markdown(lines))


def _chosen(names: str | None, suite: str) -> list[str]:
    fitting = methods.names("layout" if suite == "layout" else "words")
    chosen = fitting if names is None else [name.strip() for name in names.split(",")]
    if twice := [name for name in chosen if chosen.count(name) > 1]:
        raise typer.BadParameter(f"{twice[0]} is named twice", param_hint="--methods")
    if unknown := {name for name in chosen if ":" not in name} - set(fitting):
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: for the suite {suite} choose from {', '.join(fitting)}",
            param_hint="--methods",
        )
    for name in chosen:
        if ":" in name:
            methods.objective(name, None, {}, option="--methods")
    return chosen


def _step_sizes(texts: list[str] | None, chosen: list[str]) -> Mapping[str, float]:
    """``["syngen=4"]`` -> {"syngen": 4.0}."""
    sizes = {}
    for text in texts or []:
        name, _, size = text.partition("=")
        try:
            sizes[name] = float(size)
        except ValueError as error:
            raise typer.BadParameter(
                f"{text!r}: a step size is written method=number", param_hint="--step-size"
            ) from error
        if name not in chosen:
            raise typer.BadParameter(
                f"{name!r} is none of the methods {', '.join(chosen)}", param_hint="--step-size"
            )
        if not 0 <= sizes[name] < math.inf:
            raise typer.BadParameter(
                f"{text}: a step size is a finite number, 0 or larger", param_hint="--step-size"
            )
    return sizes


def _progress(items: Any, description: str) -> Any:
    from rich.progress import track

    return track(items, description=description, console=console)
