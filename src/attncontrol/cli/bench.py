"""``attncontrol bench``."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol import sprites
from attncontrol.batch import pipelines
from attncontrol.batch.options import parse_step
from attncontrol.bench.suites import EDITS, SUITES
from attncontrol.cli import checks, methods, paths
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console, optional_chart
from attncontrol.cli.failures import work
from attncontrol.errors import SettingError


def _suite(name: str) -> str:
    if name not in SUITES:
        raise typer.BadParameter(f"{name!r}: choose from {', '.join(SUITES)}")
    return name


def _kinds(text: str | None) -> str | None:
    kinds = [] if text is None else [kind.strip() for kind in text.split(",")]
    for kind in kinds:
        if kind not in EDITS:
            raise typer.BadParameter(f"{kind!r}: choose from {', '.join(EDITS)}")
    if len(kinds) > len(set(kinds)):
        raise typer.BadParameter(f"{text!r} names a kind twice")
    return text


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
        f"{', '.join(methods.names('layout'))}; for the suite edits those of "
        "attncontrol.bench.edit_suite.methods, such as replace, replace@0.4 (its strength), "
        "replace@curve (all strengths) and replace+auto. Default: all that fit the suite; of edits "
        "same-seed, sdedit@curve and replace.",
        callback=checks.names,
    ),
]
Model = Annotated[str, typer.Option(help=f"{', '.join(sprites.MODELS)}.", callback=_scored)]
Kinds = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help=f"Of the suite edits, separated by commas: {', '.join(EDITS)}. Default: all.",
        callback=_kinds,
    ),
]
Pairs = Annotated[
    int, typer.Option(help="How many pairs of each kind the suite edits has.", min=2, max=10_000)
]
Every = Annotated[int, typer.Option(help="Every n-th of the 276 prompts.", min=1, max=276)]
StepSizes = Annotated[
    list[str] | None,
    typer.Option(help="method=size, repeated; 6% for a share. Default: that of the method."),
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
    kind: Kinds = None,
    pairs: Pairs = 276,
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
    time and memory are multiples of plain. Of edits: what was asked is shown, the rest kept, both,
    the overlap with what was replaced (iou), PSNR in dB outside of what changes and of the other
    thing, whose colour changed by tint.
    """
    editing = suite == "edits"
    given = {"seeds": seeds != "0-3", "every": every > 1, "step_size": bool(step_size)}
    given |= {"refinements": refinements is not None}
    if editing:
        checks.effects("--suite edits", **given)
        tables = _edited(kind, methods, pairs, out)
    else:
        checks.effects(f"--suite {suite}", kind=kind is not None, pairs=pairs != 276)
        chosen = _chosen(methods, suite)
        options: dict[str, Any] = {"every": every, "refinements": refinements}
        options |= {"step_sizes": _step_sizes(step_size, chosen)}
        tables = _steered(suite, chosen, checks.seeds(seeds), out, **options)
    from attncontrol.bench.summary import require_place

    for name in tables:
        require_place(out, name)
    pipe = pipelines.opened(model, device, dtype)
    call = {"batch": batch, "progress": _progress, **pipelines.call_of(model)}
    found = _tabled({name: partial(rows, pipe, **call) for name, rows in tables.items()}, out)
    _tell(found if editing else found[suite], as_json)


def _tabled(tables: Mapping[str, Callable[[], Any]], out: Path) -> dict[str, Any]:
    """Every table when its rows are made, also in files."""
    from attncontrol.bench.summary import summary, write

    found = {}
    with work():
        for name, rows in tables.items():
            found[name] = summary(rows())
            with optional_chart():
                write(found[name], name, out)
    return found


def _tell(found: Any, as_json: bool) -> None:
    """One table, or several by their names."""
    from attncontrol.bench.summary import markdown

    if as_json:
        typer.echo(json.dumps(found))
    elif isinstance(found, dict):
        typer.echo("\n".join(f"{name}\n\n{markdown(lines)}" for name, lines in found.items()))
    else:
        typer.echo(markdown(found))


def _steered(
    suite: str, chosen: list[str], seeds: list[int], out: Path, **options: Any
) -> dict[str, Callable[..., Any]]:
    """The one table of a suite, and what makes its rows."""
    from attncontrol.bench.compare import run

    file = out / "pictures.csv"
    return {suite: partial(run, suite=suite, methods=chosen, seeds=seeds, file=file, **options)}


def _edited(
    kinds: str | None, names: str | None, pairs: int, out: Path
) -> dict[str, Callable[..., Any]]:
    """The table of every kind of edit, and what makes its rows."""
    from attncontrol.bench.edit_suite.compare import run
    from attncontrol.bench.edit_suite.methods import DEFAULTS, expanded, fits

    of_kinds = [kind.strip() for kind in kinds.split(",")] if kinds else list(EDITS)
    asked = [name.strip() for name in names.split(",")] if names else list(DEFAULTS)
    try:
        chosen = expanded(asked)
    except SettingError as error:
        raise typer.BadParameter(str(error), param_hint="--methods") from error
    if idle := [name for name in chosen if not any(fits(name, kind) for kind in of_kinds)]:
        raise typer.BadParameter(
            f"{idle[0]} does nothing for {', '.join(of_kinds)}", param_hint="--methods"
        )
    options: dict[str, Any] = {"methods": chosen, "pairs": pairs, "folder": out}
    return {f"edits-{kind}": partial(run, kind=kind, **options) for kind in of_kinds}


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


def _step_sizes(texts: list[str] | None, chosen: list[str]) -> Mapping[str, Any]:
    """``["syngen=4", "ebama=6%"]`` -> {"syngen": 4.0, "ebama": Relative(0.06)}."""
    sizes = {}
    for text in texts or []:
        name, given, size = text.partition("=")
        try:
            if not given:
                raise SettingError(f"{text!r}: a step size is written method=number or method=6%")
            sizes[name] = parse_step(size)
        except SettingError as error:
            raise typer.BadParameter(str(error), param_hint="--step-size") from error
        if name not in chosen:
            raise typer.BadParameter(
                f"{name!r} is none of the methods {', '.join(chosen)}", param_hint="--step-size"
            )
    return sizes


def _progress(items: Any, description: str) -> Any:
    from rich.progress import track

    return track(items, description=description, console=console)
