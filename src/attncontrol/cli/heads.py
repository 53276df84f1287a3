"""``attncontrol heads``."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from attncontrol.cli.app import Json, Model, app, clean_errors, console

heads = typer.Typer(no_args_is_help=True, help="Attention heads whose weakening serves an objective.")
app.add_typer(heads, name="heads")


@heads.callback()
def _group() -> None:
    """Keeps ``search`` a command of its own."""


@heads.command()
def search(
    prompts: Annotated[list[str], typer.Argument(help='Prompts, for example "a frog" "a red car".')],
    objective: Annotated[
        str,
        typer.Option(help="quality, shape, redness or size (bundled models), or your own as module:function(pictures, prompts)."),
    ] = "quality",
    model: Model = "sprites",
    seeds: Annotated[str, typer.Option(help="For example 0-3.")] = "0-3",
    rounds: Annotated[int, typer.Option(help="Heads are chosen again on top of those of the rounds before.", min=1)] = 1,
    top_k: Annotated[int, typer.Option(help="Heads chosen per round.", min=1)] = 3,
    kind: Annotated[str, typer.Option(help="self, joint or cross. Default: self, or joint where there is none.")] = "",
    layers: Annotated[str | None, typer.Option(help="Module paths or leading parts, separated by commas. Default: all.")] = None,
    scale: Annotated[float, typer.Option(help="w in e + w (e - e_weakened).")] = 3.0,
    u: Annotated[float, typer.Option(help="How much of the head becomes the identity (SoftPAG).", min=0, max=1)] = 1.0,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none, as in the paper.")] = 1.0,
    halving: Annotated[bool, typer.Option("--halving", help="Drop hopeless heads early: faster by 2, not exact.")] = False,
    batch: Annotated[int, typer.Option(help="Pictures per pipeline call, of different heads.", min=1)] = 16,
    out: Annotated[Path, typer.Option(help="Folder for heads.json, scores.png and the cache.")] = Path("attncontrol-heads"),
    as_json: Json = False,
) -> None:
    """Search for heads; interrupted, it goes on where it was. ``generate --heads`` and ``perturb(heads=...)`` take the result."""
    with clean_errors():
        from attncontrol import batch as engine
        from attncontrol import testbed
        from attncontrol.edits.soft_identity import SoftIdentity
        from attncontrol.export.chart import head_scores
        from attncontrol.heads import search_heads

        function = _objective(objective)
        pipe = engine.load(model)
        pipe.set_progress_bar_config(disable=True)
        call = dict(testbed.CALL.get(model, {"num_inference_steps": 50}))
        call["true_cfg_scale" if "true_cfg_scale" in call else "guidance_scale"] = guidance
        out.mkdir(parents=True, exist_ok=True)
        try:
            jobs = [(prompt, seed) for prompt in prompts for seed in engine.parse_seeds(seeds)]
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

        def progress(items: Any, total: int, description: str) -> Any:
            return track(items, description, total=total, console=console)

        found = search_heads(
            pipe, jobs, function, edit=SoftIdentity(u), scale=scale, where=_where(pipe, kind, layers), rounds=rounds, top_k=top_k,
            halving=halving, batch=batch, cache=out / "scores.jsonl", progress=progress, **call,
        )  # fmt: skip
        found.save(out / "heads.json")
        head_scores(found, out / "scores.png")
    if as_json:
        typer.echo((out / "heads.json").read_text("utf-8"))
        return
    table = Table("round", "site", "head", objective)
    for number, each in enumerate(found.rounds, 1):
        for name, head in each.chosen:
            table.add_row(str(number), name, str(head), f"{each.scores[name, head]:.4f}")
    console.print(table)
    console.print(f"heads.json, for generate --heads, and the scores of all heads, scores.png, are in {out}/")


def _objective(name: str) -> Any:
    from attncontrol.testbed.objectives import OBJECTIVES

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
    from attncontrol.families import family_of
    from attncontrol.sites import Where

    if kind not in ("", "self", "joint", "cross"):
        raise typer.BadParameter(f"--kind {kind}: choose from self, joint, cross")
    family = family_of(pipe)
    kinds = {site.kind for site in family.sites(family.denoiser(pipe))}
    return Where(kind=kind or ("self" if "self" in kinds else "joint"), layers=tuple(layers.split(",")) if layers else ())  # type: ignore[arg-type]  # checked
