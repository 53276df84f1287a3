"""``attncontrol bench``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli.app import (
    Dtype,
    Json,
    Model,
    app,
    clean_errors,
    console,
    optional_chart,
    precision,
)


@app.command()
def bench(
    suite: Annotated[str, typer.Option(help="pairs, triples, colors or layout.")] = "pairs",
    methods: Annotated[
        str | None, typer.Option(help="Separated by commas. Default: all that fit the suite.")
    ] = None,
    model: Model = "sprites",
    seeds: Annotated[str, typer.Option(help="For example 0-3.")] = "0-3",
    every: Annotated[int, typer.Option(help="Every n-th of the 276 prompts.", min=1)] = 1,
    step_size: Annotated[
        list[str] | None, typer.Option(help="method=size, repeated. Default: that of the method.")
    ] = None,
    refinements: Annotated[
        int | None,
        typer.Option(help="Largest number at a step; 0 for none. Default: that of the method."),
    ] = None,
    dtype: Dtype = "float32",
    out: Annotated[
        Path, typer.Option(help="Output folder; a run that was interrupted goes on here.")
    ] = Path("attncontrol-bench"),
    as_json: Json = False,
) -> None:
    """Compare methods on a bundled model, from the same seeds: a table, a chart, and one line per
    picture."""
    with clean_errors():
        from rich.progress import track

        from attncontrol import losses, sprites
        from attncontrol.batch import generate as engine
        from attncontrol.bench import compare, suites, summary

        if suite not in suites.SUITES:
            raise typer.BadParameter(f"--suite {suite}: choose from {', '.join(suites.SUITES)}")
        wanted = "layout" if suite == "layout" else "words"
        fitting = [name for name, needs in losses.methods().items() if needs == wanted]
        chosen = methods.split(",") if methods else fitting
        if unknown := {name for name in chosen if ":" not in name} - set(fitting):
            raise typer.BadParameter(
                f"--methods {', '.join(sorted(unknown))}: for the suite {suite} choose from {', '.join(fitting)}"
            )
        if model not in sprites.MODELS:
            raise typer.BadParameter(
                f"--model {model}: pictures can be scored for {', '.join(sprites.MODELS)} only"
            )
        try:
            numbers = engine.parse_seeds(seeds)
            sizes = {
                name: float(size)
                for name, _, size in (text.partition("=") for text in step_size or [])
            }
        except ValueError as error:
            raise typer.BadParameter(f"{error} (a step size is written method=number)") from error
        pipe = engine.load(model, dtype=precision(dtype))
        pipe.set_progress_bar_config(disable=True)

        def progress(items: Any, description: str) -> Any:
            return track(items, description=description, console=console)

        settings: dict[str, Any] = {
            "every": every,
            "step_sizes": sizes,
            "refinements": refinements,
            "progress": progress,
        }
        file = out / "pictures.csv"
        rows = compare.run(pipe, suite, chosen, numbers, file, **settings, **sprites.CALL[model])
        lines = summary.summary(rows)
        (out / f"{suite}.md").write_text(summary.markdown(lines), "utf-8")
        (out / f"{suite}.json").write_text(json.dumps(lines, indent=1), "utf-8")
        from attncontrol.export.chart import bars

        with optional_chart():
            bars(lines, suites.MEASURES[suite], out / f"{suite}.png")
    typer.echo(json.dumps(lines) if as_json else summary.markdown(lines))
