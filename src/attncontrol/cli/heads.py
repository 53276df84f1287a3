"""``attncontrol heads``."""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from attncontrol.cli import checks, pipelines
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, clean_errors, console, optional_chart

heads = typer.Typer(
    no_args_is_help=True, help="Attention heads whose weakening serves an objective."
)
app.add_typer(heads, name="heads")


def _kind(name: str) -> str:
    if name not in ("", "self", "joint", "cross"):
        raise typer.BadParameter(f"{name!r}: choose from self, joint, cross")
    return name


def _prompts(texts: list[str]) -> list[str]:
    return [str(checks.prompt(text)) for text in texts]


Objective = Annotated[
    str,
    typer.Option(
        help="quality, shape, redness, size, texture (bundled models), or "
        "module:function(pictures, prompts)."
    ),
]
Scale = Annotated[float, typer.Option(help="w in e + w (e - e_weakened).", callback=checks.finite)]
Guidance = Annotated[
    float,
    typer.Option(
        help="Classifier-free guidance scale; 1 is none, as in the paper.", callback=checks.finite
    ),
]
Rounds = Annotated[
    int, typer.Option(help="Heads are chosen again on top of those of the rounds before.", min=1)
]
TopK = Annotated[int, typer.Option(help="Heads chosen per round.", min=1)]
Kind = Annotated[
    str,
    typer.Option(
        help="self, joint or cross. Default: self, or joint where there is none.", callback=_kind
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(help="Module paths or leading parts, separated by commas. Default: all."),
]
Halving = Annotated[
    bool,
    typer.Option("--halving", help="Drop hopeless heads early: 0.6 of the pictures, not exact."),
]
Out = Annotated[
    Path,
    typer.Option(help="Folder for heads.json, scores.png and the cache.", callback=checks.folder),
]
Strengths = Annotated[
    str,
    typer.Option("--u", help="Strengths from 0, separated by commas.", callback=checks.strengths),
]


@heads.command()
def search(
    prompts: Annotated[
        list[str],
        typer.Argument(help='Prompts, for example "a frog" "a red car".', callback=_prompts),
    ],
    objective: Objective = "quality",
    model: of.Model = "sprites",
    seeds: of.Seeds = "0-3",
    rounds: Rounds = 1,
    top_k: TopK = 3,
    kind: Kind = "",
    layers: Layers = None,
    scale: Scale = 3.0,
    u: of.Strength = 1.0,
    guidance: Guidance = 1.0,
    halving: Halving = False,
    batch: of.Batch = 8,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    out: Out = Path("attncontrol-heads"),
    as_json: of.Json = False,
) -> None:
    """Search for heads; interrupted, it goes on where it was. ``generate --heads`` and
    ``perturb(heads=...)`` take the result."""
    jobs = [(prompt, seed) for prompt in prompts for seed in checks.seeds(seeds)]
    named = {"model": model, "dtype": dtype, "objective": objective, "scale": scale, "u": u}
    with clean_errors():
        from attncontrol.batch.results import same_settings

        function = _objective(objective)
        call = pipelines.call_of(model, guidance=guidance)
        pipe = pipelines.opened(model, device, dtype)
        same_settings(out / "settings.json", named | {"call": call}, of=out / "scores.jsonl")
        options: dict[str, Any] = {
            "where": _where(pipe, kind, layers),
            "rounds": rounds,
            "top_k": top_k,
        }
        options |= {"halving": halving, "batch": batch, "scale": scale, **call}
        found = _searched(pipe, jobs, function, u, out, options)
    if as_json:
        typer.echo((out / "heads.json").read_text("utf-8"))
    else:
        _show_search(found, objective, out)


def _searched(
    pipe: Any, jobs: list[tuple[str, int]], function: Any, u: float, out: Path, options: Any
) -> Any:
    """The search, its result and its chart in ``out``."""
    from attncontrol.batch.head_search import search_heads
    from attncontrol.edits.soft_identity import SoftIdentity
    from attncontrol.export.chart import head_scores

    def progress(items: Any, total: int, description: str) -> Any:
        return track(items, description, total=total, console=console)

    cache: dict[str, Any] = {"cache": out / "scores.jsonl", "progress": progress}
    found = search_heads(pipe, jobs, function, edit=SoftIdentity(u), **cache, **options)
    found.save(out / "heads.json")
    with optional_chart():
        head_scores(found.rounds, out / "scores.png")
    return found


def _show_search(found: Any, objective: str, out: Path) -> None:
    table = Table("round", "site", "head", objective)
    for number, each in enumerate(found.rounds, 1):
        table.add_row(str(number), "without" if number > 1 else "plain", "", f"{each.without:.4f}")
        for name, head in each.chosen:
            table.add_row(str(number), name, str(head), f"{each.scores[name, head]:.4f}")
    console.print(table)
    console.print(f"heads.json, for generate --heads, and the scores of all heads are in {out}/")


@heads.command(cls=PromptCommand)
def strip(
    prompt: of.Prompt,
    file: Annotated[
        Path,
        typer.Option("--heads", help="The result of heads search.", exists=True, dir_okay=False),
    ],
    objective: Objective = "texture",
    model: of.Model = "sprites",
    seeds: Annotated[
        str, typer.Option(help="Of the measurement; the first three are shown.")
    ] = "0-7",
    us: Strengths = "0,0.25,0.5,0.75,1",
    scale: Scale = 3.0,
    guidance: Guidance = 1.0,
    steps: of.Steps = None,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    out: Annotated[Path, typer.Option(help="PNG file.", callback=checks.picture_file)] = Path(
        "strip.png"
    ),
    as_json: of.Json = False,
) -> None:
    """How much heads do at strengths u from 0 to 1: shifts of the objective in deviations over
    seeds, and a strip of pictures."""
    numbers, values = checks.seeds(seeds), [float(u) for u in us.split(",")]
    with clean_errors():
        from attncontrol.batch.head_search import load_heads
        from attncontrol.batch.strengths import strengths

        function, weakened = _objective(objective), load_heads(file)
        call = pipelines.call_of(model, steps, guidance)
        pipe = pipelines.opened(model, device, dtype)
        try:
            found = strengths(
                pipe, prompt, numbers, function, weakened, us=values, scale=scale, **call
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        count = f"{len(weakened)} head{'s' * (len(weakened) != 1)}"
        title = (
            f"{prompt}: {count} weakened; shift of {objective} in deviations "
            f"over {len(numbers)} seeds"
        )
        _strip(found, numbers, title).save(out)
    if as_json:
        rows = [{"u": each.u, "shift": each.shift, "scores": each.scores} for each in found]
        typer.echo(json.dumps(rows))
    else:
        _show_strip(found, objective, out)


def _strip(found: Any, seeds: list[int], title: str) -> Any:
    """Pictures of the first three seeds at all strengths."""
    from attncontrol.maps.draw import grid

    rows = {
        f"seed {seed}": [each.pictures[i] for each in found] for i, seed in enumerate(seeds[:3])
    }
    labels = ["plain" if each.u == 0 else f"u = {each.u:g}  ({each.shift:+.1f})" for each in found]
    return grid(rows, labels, title=title)


def _show_strip(found: Any, objective: str, out: Path) -> None:
    table = Table("u", f"mean {objective}", "shift in deviations")
    for each in found:
        mean = sum(each.scores) / len(each.scores)
        table.add_row(f"{each.u:g}", f"{mean:.4f}", f"{each.shift:+.2f}")
    console.print(table)
    console.print(f"The strip is {out}")


def _objective(name: str) -> Any:
    from attncontrol.sprites.objectives import OBJECTIVES

    if name in OBJECTIVES:
        return OBJECTIVES[name]
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(
            f"{name}: choose from {', '.join(OBJECTIVES)}, or write module:function ({error})",
            param_hint="--objective",
        ) from error


def _where(pipe: Any, kind: str, layers: str | None) -> Any:
    from attncontrol.attention.sites import Where
    from attncontrol.families.known import family_of

    family = family_of(pipe)
    kinds = {site.kind for site in family.sites(family.denoiser(pipe))}
    default = "self" if "self" in kinds else "joint"
    return Where(
        kind=kind or default,  # type: ignore[arg-type]  # checked
        layers=tuple(layers.split(",")) if layers else (),
    )
