"""The command that shows what became of a job: ``report``."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from attncontrol.cli import options as of
from attncontrol.cli import paths, scoring
from attncontrol.cli.app import app, console
from attncontrol.cli.failures import work
from attncontrol.scores.names import Models

Folder = Annotated[
    Path,
    typer.Argument(help="That attncontrol batch --out wrote.", callback=paths.existing),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The page to write, the tables beside it. Default: DIR/report.html.",
        callback=paths.page_file,
    ),
]
NoPage = Annotated[bool, typer.Option("--no-page", help="Write the tables alone.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


@app.command()
def report(
    folder: Folder,
    score: scoring.Scores = None,
    out: Out = None,
    no_page: NoPage = False,
    clip_model: scoring.Clip = scoring.DEFAULT.clip,
    caption_model: scoring.Captions = scoring.DEFAULT.captions,
    vqa_model: scoring.Questions = scoring.DEFAULT.vqa,
    detector: scoring.Detector = scoring.DEFAULT.detector,
    device: of.Device = "cpu",
    open_it: Open = False,
    as_json: of.Json = False,
) -> None:
    """Show what became of a job: one HTML page of all pictures with their scores, the methods side
    by side, and tables of every picture, scores.csv and scores.parquet."""
    from attncontrol.report.write import prepare

    target = out or folder / "report.html"
    if not no_page:
        paths.require(target, as_folder=False, option="--out")
    models = Models(clip_model, caption_model, vqa_model, detector)
    prepared = prepare(
        folder, score, out=target, models=models, device=device, with_page=not no_page
    )
    with work():
        made = prepared.write(_progress)
    if open_it and not no_page:
        import webbrowser

        webbrowser.open(target.resolve().as_uri())
    _say(made, as_json)


def _progress(items: Any, description: str) -> Iterable[Any]:
    from rich.progress import track

    return track(items, description=description, console=console)


def _say(made: Any, as_json: bool) -> None:
    if as_json:
        told = {"files": [str(file) for file in made.files], "lines": list(map(_told, made.lines))}
        typer.echo(json.dumps(told))
        return
    console.print(_table(made))
    if made.left_out:
        console.print(made.left_out, soft_wrap=True)
    for file in made.files:
        console.print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


def _told(line: Any) -> dict[str, Any]:
    numbers = ("pictures", "failed", "seconds", "pairs", "time")
    told = {name: _finite(getattr(line, name)) for name in numbers}
    told |= {"arm": line.arm.name, "against": line.against and line.against.name}
    for name in ("means", "gains"):
        told[name] = {
            score: {each: _finite(value) for each, value in vars(of).items()}
            for score, of in getattr(line, name).items()
        }
    return told


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(made: Any) -> Table:
    table = Table("method", "pictures", "failed", *made.scores, "seconds")
    for line in made.lines:
        cells = [_cell(line.means.get(name), line.gains.get(name)) for name in made.scores]
        count = str(line.pictures), str(line.failed or "")
        table.add_row(Text(line.arm.name), *count, *cells, f"{line.seconds:.2f}")
    return table


def _cell(mean: Any, gain: Any) -> str:
    """ "0.750 (+0.250; 0.050 to 0.400)"."""
    if mean is None:
        return ""
    between = f"; {gain.low:.3f} to {gain.high:.3f}" if gain and math.isfinite(gain.low) else ""
    return f"{mean.value:.3f}" + (f" ({gain.value:+.3f}{between})" if gain else "")
