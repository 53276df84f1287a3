"""``attncontrol check``."""

import json
from dataclasses import asdict
from statistics import fmean
from types import SimpleNamespace
from typing import Annotated, Any

import typer
from rich.table import Table

from attncontrol.batch import pipelines
from attncontrol.cli import checks, methods
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, console
from attncontrol.cli.failures import work

Batch = Annotated[int, typer.Option(help="Seeds per pipeline call.", min=1, max=10_000)]


@app.command(cls=PromptCommand)
def check(
    prompt: of.Prompt,
    method: of.Method = "attend-and-excite",
    words: of.Groups = None,
    box: of.Box = None,
    model: of.Model = "sprites",
    seeds: of.Seeds = "0-2",
    steps: of.Steps = None,
    guidance: of.Guidance = None,
    negative: of.Negative = None,
    height: of.Height = None,
    width: of.Width = None,
    step_size: of.StepSize = None,
    batch: Batch = 3,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Say whether the step size of a method fits a model: seeds plain and guided, how far the
    latents moved, whether the losses fell and the pictures stayed in the range of plain ones."""
    given = SimpleNamespace(**locals())
    numbers, boxes, groups = checks.seeds(seeds), checks.boxes(box), checks.groups(words)
    if method == "plain":
        raise typer.BadParameter("plain has no setting", param_hint="--method")
    methods.check(method, boxes, groups)
    checks.subjects([prompt], groups, boxes)
    call = pipelines.call_of(model, steps, guidance, negative, height, width)
    objective, descent = methods.objective(method, groups, boxes, step_size)
    from attncontrol.batch.setting_check import check_setting

    pipe = pipelines.opened(model, device, dtype)
    with work():
        found = check_setting(
            pipe, objective, prompt, numbers, descent=descent, batch=batch, **call
        )
    if as_json:
        typer.echo(json.dumps(_told(found, given, call)))
    else:
        _show(found)


def _told(found: Any, given: Any, call: dict[str, Any]) -> dict[str, Any]:
    """All numbers, by their names in Python."""
    from attncontrol.batch.verdicts import FACTOR, LEAST, MOST

    asked = {name: getattr(given, name) for name in ("model", "method", "prompt")}
    rows = [asdict(seed) | {"verdict": seed.verdict, "peak": seed.peak, "fall": seed.fall}
            for seed in found.seeds]  # fmt: skip
    return {
        "verdict": found.verdict,
        "remedy": found.remedy,
        **asked,
        "step_size": str(found.step_size),
        "call": call,
        "limits": {"least": LEAST, "most": MOST, "factor": FACTOR},
        "seeds": rows,
    }


def _show(found: Any) -> None:
    """A line per seed, and what to do."""
    table = Table("seed", "largest move", "losses, plain", "guided", "left the plain range", "")
    for seed in found.seeds:
        means = [f"{fmean(each):.3f}" if each else "" for each in (seed.plain_losses, seed.losses)]
        moved = f"{100 * seed.peak:.3g} %"
        table.add_row(str(seed.seed), moved, *means, ", ".join(seed.left), seed.verdict)
    console.print(table)
    console.print(f"Step size {found.step_size}: {found.verdict}", highlight=False)
    if found.remedy:
        console.print(f"Try: {found.remedy}")
