"""``attncontrol heads strip``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from attncontrol.batch import pipelines
from attncontrol.cli import checks, paths
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, console
from attncontrol.cli.failures import work
from attncontrol.cli.heads import Guidance, Objective, Scale, heads, objective_of

File = Annotated[
    Path,
    typer.Option(
        "--heads",
        help="The result of heads search.",
        exists=True,
        dir_okay=False,
        callback=paths.heads,
    ),
]
Seeds = Annotated[str, typer.Option(help="Of the measurement; the first three are shown.")]
Out = Annotated[Path, typer.Option(help="PNG file.", callback=paths.picture_file)]
Strengths = Annotated[
    str,
    typer.Option("--u", help="Strengths from 0, separated by commas.", callback=checks.strengths),
]


@heads.command(cls=PromptCommand)
def strip(
    prompt: of.Prompt,
    file: File,
    objective: Objective = "texture",
    model: of.Model = "sprites",
    seeds: Seeds = "0-7",
    us: Strengths = "0,0.25,0.5,0.75,1",
    scale: Scale = 3.0,
    guidance: Guidance = 1.0,
    steps: of.Steps = None,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    out: Out = Path("strip.png"),
    as_json: of.Json = False,
) -> None:
    """How much heads do at strengths u from 0 to 1: shifts of the objective in deviations over
    seeds, and a strip of pictures."""
    numbers, values = checks.seeds(seeds), [float(u) for u in us.split(",")]
    if len(numbers) < 2:
        raise typer.BadParameter("deviations need at least two seeds", param_hint="--seeds")
    paths.apart(out, [file])
    from attncontrol.batch.chosen_heads import load_heads
    from attncontrol.batch.strengths import strengths
    from attncontrol.export.folder import is_picture, save
    from attncontrol.writing import require_free

    require_free(out, is_picture, inputs=[file])
    function, weakened = objective_of(objective), load_heads(file)
    options = {"us": values, "scale": scale, **pipelines.call_of(model, steps, guidance)}
    pipe = pipelines.opened(model, device, dtype)
    count = f"{len(weakened)} head{'s' * (len(weakened) != 1)}"
    shift = f"shift of {objective} in deviations over {len(numbers)} seeds"
    about = {"prompt": prompt, "seeds": numbers, "model": model, "objective": objective}
    with work():
        found = strengths(pipe, prompt, numbers, function, weakened, **options)
        drawn = _drawn(found, numbers, f"{prompt}: {count} weakened; {shift}")
        save(drawn, out, about | options, is_picture)
    if as_json:
        rows = [{"u": each.u, "shift": each.shift, "scores": each.scores} for each in found]
        typer.echo(json.dumps(rows))
    else:
        _show(found, objective, out)


def _drawn(found: Any, seeds: list[int], title: str) -> Any:
    """Pictures of the first three seeds at all strengths."""
    from attncontrol.maps.draw import grid

    rows = {
        f"seed {seed}": [each.pictures[i] for each in found] for i, seed in enumerate(seeds[:3])
    }
    labels = ["plain" if each.u == 0 else f"u = {each.u:g}  ({each.shift:+.1f})" for each in found]
    return grid(rows, labels, title=title)


def _show(found: Any, objective: str, out: Path) -> None:
    table = Table("u", f"mean {objective}", "shift in deviations")
    for each in found:
        mean = sum(each.scores) / len(each.scores)
        table.add_row(f"{each.u:g}", f"{mean:.4f}", f"{each.shift:+.2f}")
    console.print(table)
    console.print(f"The strip is {out}")
