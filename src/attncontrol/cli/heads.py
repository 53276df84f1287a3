"""``attncontrol heads``."""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

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

heads = typer.Typer(
    no_args_is_help=True, help="Attention heads whose weakening serves an objective."
)
app.add_typer(heads, name="heads")


@heads.command()
def search(
    prompts: Annotated[
        list[str], typer.Argument(help='Prompts, for example "a frog" "a red car".')
    ],
    objective: Annotated[
        str,
        typer.Option(
            help="quality, shape, redness, size, texture (bundled models), or module:function(pictures, prompts)."
        ),
    ] = "quality",
    model: Model = "sprites",
    seeds: Annotated[str, typer.Option(help="For example 0-3.")] = "0-3",
    rounds: Annotated[
        int,
        typer.Option(help="Heads are chosen again on top of those of the rounds before.", min=1),
    ] = 1,
    top_k: Annotated[int, typer.Option(help="Heads chosen per round.", min=1)] = 3,
    kind: Annotated[
        str, typer.Option(help="self, joint or cross. Default: self, or joint where there is none.")
    ] = "",
    layers: Annotated[
        str | None,
        typer.Option(help="Module paths or leading parts, separated by commas. Default: all."),
    ] = None,
    scale: Annotated[float, typer.Option(help="w in e + w (e - e_weakened).")] = 3.0,
    u: Annotated[
        float,
        typer.Option(help="How much of the head becomes the identity (SoftPAG).", min=0, max=1),
    ] = 1.0,
    guidance: Annotated[
        float, typer.Option(help="Classifier-free guidance scale; 1 is none, as in the paper.")
    ] = 1.0,
    halving: Annotated[
        bool,
        typer.Option(
            "--halving", help="Drop hopeless heads early: 0.6 of the pictures, not exact."
        ),
    ] = False,
    batch: Annotated[
        int, typer.Option(help="Pictures per pipeline call, of different heads.", min=1)
    ] = 8,
    dtype: Dtype = "float32",
    out: Annotated[
        Path, typer.Option(help="Folder for heads.json, scores.png and the cache.")
    ] = Path("attncontrol-heads"),
    as_json: Json = False,
) -> None:
    """Search for heads; interrupted, it goes on where it was. ``generate --heads`` and
    ``perturb(heads=...)`` take the result."""
    with clean_errors():
        from attncontrol.batch import generate as engine
        from attncontrol.batch.head_search import search_heads
        from attncontrol.batch.results import same_settings
        from attncontrol.edits.soft_identity import SoftIdentity
        from attncontrol.export.chart import head_scores

        function = _objective(objective)
        pipe, call = _pipeline(model, guidance, dtype)
        try:
            jobs = [(prompt, seed) for prompt in prompts for seed in engine.parse_seeds(seeds)]
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        settings = {
            "model": model,
            "dtype": dtype,
            "objective": objective,
            "scale": scale,
            "u": u,
            "call": call,
        }
        same_settings(out / "settings.json", settings, of=out / "scores.jsonl")

        def progress(items: Any, total: int, description: str) -> Any:
            return track(items, description, total=total, console=console)

        found = search_heads(
            pipe, jobs, function, edit=SoftIdentity(u), scale=scale, where=_where(pipe, kind, layers), rounds=rounds, top_k=top_k,
            halving=halving, batch=batch, cache=out / "scores.jsonl", progress=progress, **call,
        )  # fmt: skip
        found.save(out / "heads.json")
        with optional_chart():
            head_scores(found.rounds, out / "scores.png")
    if as_json:
        typer.echo((out / "heads.json").read_text("utf-8"))
        return
    table = Table("round", "site", "head", objective)
    for number, each in enumerate(found.rounds, 1):
        table.add_row(str(number), "without" if number > 1 else "plain", "", f"{each.without:.4f}")
        for name, head in each.chosen:
            table.add_row(str(number), name, str(head), f"{each.scores[name, head]:.4f}")
    console.print(table)
    console.print(f"heads.json, for generate --heads, and the scores of all heads are in {out}/")


@heads.command()
def strip(
    prompt: Annotated[str, typer.Argument(help='For example "a car".')],
    file: Annotated[
        Path,
        typer.Option("--heads", help="The result of heads search.", exists=True, dir_okay=False),
    ],
    objective: Annotated[
        str,
        typer.Option(
            help="What is measured: quality, shape, redness, size, texture, or module:function(pictures, prompts)."
        ),
    ] = "texture",
    model: Model = "sprites",
    seeds: Annotated[
        str, typer.Option(help="Of the measurement; the first three are shown.")
    ] = "0-7",
    us: Annotated[
        str, typer.Option("--u", help="Strengths from 0, separated by commas.")
    ] = "0,0.25,0.5,0.75,1",
    scale: Annotated[float, typer.Option(help="w in e + w (e - e_weakened).")] = 3.0,
    guidance: Annotated[
        float, typer.Option(help="Classifier-free guidance scale; 1 is none, as in the search.")
    ] = 1.0,
    steps: Annotated[
        int | None,
        typer.Option(help="Denoising steps. Default: 25 for the bundled models, else 50.", min=1),
    ] = None,
    dtype: Dtype = "float32",
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("strip.png"),
    as_json: Json = False,
) -> None:
    """How much heads do at strengths u from 0 to 1: shifts of the objective in deviations over
    seeds, and a strip of pictures."""
    with clean_errors():
        from attncontrol.batch import generate as engine
        from attncontrol.batch.head_search import load_heads
        from attncontrol.batch.strengths import strengths
        from attncontrol.maps.draw import grid

        function, weakened = _objective(objective), load_heads(file)
        pipe, call = _pipeline(model, guidance, dtype)
        call |= {} if steps is None else {"num_inference_steps": steps}
        try:
            numbers, values = engine.parse_seeds(seeds), [float(u) for u in us.split(",")]
            found = strengths(
                pipe, prompt, numbers, function, weakened, us=values, scale=scale, **call
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        count = f"{len(weakened)} head{'s' * (len(weakened) != 1)}"
        title = f"{prompt}: {count} weakened; shift of {objective} in deviations over {len(numbers)} seeds"
        rows = {
            f"seed {seed}": [each.pictures[i] for each in found]
            for i, seed in enumerate(numbers[:3])
        }
        labels = [
            "plain" if each.u == 0 else f"u = {each.u:g}  ({each.shift:+.1f})" for each in found
        ]
        grid(rows, labels, title=title).save(out)
    if as_json:
        typer.echo(
            json.dumps(
                [{"u": each.u, "shift": each.shift, "scores": each.scores} for each in found]
            )
        )
        return
    table = Table("u", f"mean {objective}", "shift in deviations")
    for each in found:
        table.add_row(
            f"{each.u:g}", f"{sum(each.scores) / len(each.scores):.4f}", f"{each.shift:+.2f}"
        )
    console.print(table)
    console.print(f"The strip is {out}")


def _pipeline(model: str, guidance: float, dtype: str) -> tuple[Any, dict[str, Any]]:
    """With the arguments of its call."""
    from attncontrol import sprites
    from attncontrol.batch import generate as engine

    pipe = engine.load(model, dtype=precision(dtype))
    pipe.set_progress_bar_config(disable=True)
    return pipe, engine.guided(sprites.CALL.get(model, {"num_inference_steps": 50}), guidance)


def _objective(name: str) -> Any:
    from attncontrol.sprites.objectives import OBJECTIVES

    if name in OBJECTIVES:
        return OBJECTIVES[name]
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(
            f"--objective {name}: choose from {', '.join(OBJECTIVES)}, or write module:function ({error})"
        ) from error


def _where(pipe: Any, kind: str, layers: str | None) -> Any:
    from attncontrol.attention.sites import Where
    from attncontrol.families.known import family_of

    if kind not in ("", "self", "joint", "cross"):
        raise typer.BadParameter(f"--kind {kind}: choose from self, joint, cross")
    family = family_of(pipe)
    kinds = {site.kind for site in family.sites(family.denoiser(pipe))}
    return Where(
        kind=kind or ("self" if "self" in kinds else "joint"),
        layers=tuple(layers.split(",")) if layers else (),
    )  # type: ignore[arg-type]  # checked
