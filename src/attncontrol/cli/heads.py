"""``attncontrol heads``."""

import inspect
import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track
from rich.table import Table

from attncontrol import listing
from attncontrol.batch import pipelines
from attncontrol.cli import checks, paths
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console, optional_chart
from attncontrol.cli.failures import work
from attncontrol.errors import ResultsError, SettingError

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


Prompts = Annotated[
    list[str],
    typer.Argument(help='Prompts, for example "a frog" "a red car".', callback=_prompts),
]
Objective = Annotated[
    str,
    typer.Option(
        help="quality, shape, redness, size, texture (bundled models), or "
        "module:function(pictures, prompts)."
    ),
]
Scale = Annotated[float, typer.Option(help="w in e + w (e - e_weakened).", callback=checks.scale)]
Guidance = Annotated[
    float,
    typer.Option(
        help="Classifier-free guidance scale; 1 is none, as in the paper.", callback=checks.scale
    ),
]
Rounds = Annotated[
    int,
    typer.Option(
        help="Heads are chosen again on top of those of the rounds before.", min=1, max=100
    ),
]
TopK = Annotated[int, typer.Option(help="Heads chosen per round.", min=1, max=10_000)]
Kind = Annotated[
    str,
    typer.Option(
        help="self, joint or cross. Default: self, or joint where there is none.", callback=_kind
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        help="Module paths or leading parts, separated by commas. Default: all.",
        callback=checks.names,
    ),
]
Halving = Annotated[
    bool,
    typer.Option("--halving", help="Drop hopeless heads early: 0.6 of the pictures, not exact."),
]
Out = Annotated[
    Path,
    typer.Option(
        help="Folder for heads.json, scores.png and the cache.",
        callback=paths.folder,
        parser=paths.named,
        metavar="PATH",
    ),
]


@heads.command()
def search(
    prompts: Prompts,
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
    """Search for heads; interrupted, it goes on where it was. generate --heads and
    perturb(heads=...) take the result."""
    jobs = [(prompt, seed) for prompt in prompts for seed in checks.seeds(seeds)]
    named: dict[str, Any] = {"model": model, "device": device, "dtype": dtype, "u": u}
    named |= {"objective": objective, "scale": scale}
    from attncontrol.batch.results import same_settings

    function = objective_of(objective)
    call = pipelines.call_of(model, guidance=guidance)
    _require_place(out, named | call)
    pipe = pipelines.opened(model, device, dtype)
    same_settings(out / "settings.json", named | call, of=out / "scores.jsonl")
    options = {"where": _where(pipe, kind, layers), "rounds": rounds, "top_k": top_k, **call}
    options |= {"halving": halving, "batch": batch, "scale": scale}
    with work():
        found = _searched(pipe, jobs, function, u, out, options)
    if as_json:
        typer.echo((out / "heads.json").read_text("utf-8"))
    else:
        _show_search(found, objective, out)


def _require_place(out: Path, settings: dict[str, Any]) -> None:
    """Raises WriteError for a folder that holds other things than results of a search, ResultsError
    for those of one with other settings."""
    from attncontrol.batch.chosen_heads import is_heads
    from attncontrol.batch.results import require_results, require_same_settings
    from attncontrol.export.chart import is_chart
    from attncontrol.writing import require_free

    require_results(out, "settings.json", ["settings.json", "scores.jsonl"])
    require_free(out / "heads.json", is_heads)
    require_free(out / "scores.png", is_chart)
    require_same_settings(out / "settings.json", settings, of=out / "scores.jsonl")


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
    found.write(out / "heads.json")
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


def objective_of(name: str) -> Any:
    """A bundled one, or module:function, where the module may lie in the current folder."""
    from attncontrol.sprites.objectives import OBJECTIVES

    if name in OBJECTIVES:
        return OBJECTIVES[name]
    try:
        function = listing.named(name)
        inspect.signature(function).bind([], [])
    except (SettingError, TypeError, ValueError) as error:
        raise typer.BadParameter(
            f"{name}: choose from {', '.join(OBJECTIVES)}, or write module:function, a function of "
            f"pictures and prompts ({error})",
            param_hint="--objective",
        ) from error
    return partial(_scores, function, name)


def _scores(function: Any, name: str, pictures: Any, prompts: Any) -> list[float]:
    """Of a user's function. Raises ResultsError unless it gives one finite number per picture."""
    found = function(pictures, prompts)
    try:
        scores = [float(score) for score in found]
    except (TypeError, ValueError):
        scores = []
    if len(scores) != len(pictures) or not all(map(math.isfinite, scores)):
        raise ResultsError(
            f"--objective {name} must return one finite number per picture: "
            f"{str(found)[:80]} for {len(pictures)} pictures"
        )
    return scores


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
