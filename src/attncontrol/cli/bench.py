"""``attncontrol bench``."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from attncontrol.batch import pipelines
from attncontrol.batch.options import parse_step
from attncontrol.bench.suites import EDITS
from attncontrol.cli import bench_options as those
from attncontrol.cli import bench_photos, checks, methods
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console, optional_chart
from attncontrol.cli.failures import work
from attncontrol.errors import SettingError

_PAIRS = "276"
_EFFECTS = {  # of options that not all suites have; those of all others are below
    "edits": {"methods", "kind", "pairs"},
    "photos": {"kind", "pairs", "inversions", "editors", "count", "seed"},
}
_STEERING = {"methods", "seeds", "every", "step_size", "refinements"}


@app.command()
def bench(
    suite: those.Suite = "pairs",
    methods: those.Methods = None,
    inversions: those.Inversions = None,
    editors: those.Editors = None,
    model: those.Model = "sprites",
    kind: those.Kinds = None,
    pairs: those.Pairs = _PAIRS,
    count: those.Count = None,
    seed: those.Seed = 0,
    seeds: of.Seeds = "0-3",
    every: those.Every = 1,
    step_size: those.StepSizes = None,
    refinements: those.Refinements = None,
    batch: of.Batch = 8,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    out: those.Out = Path("attncontrol-bench"),
    as_json: of.Json = False,
) -> None:
    """Compare methods on a bundled model, from the same seeds: a table, a chart, and one line per
    picture.

    Columns: shares of pictures that show all nouns (present), in their colours (bound), in their
    boxes (iou, inside), the scorer's confidence, each with its gain over plain and a 95 % interval;
    time and memory are multiples of plain. Of edits: what was asked is shown, the rest kept, both,
    the overlap with what was replaced (iou), PSNR in dB outside of what changes and of the other
    thing, whose colour changed by tint. Of photos, pictures that exist: the distance to the exact
    target, inside and outside of what changes, and how well the inversion gives the picture back.
    """
    folder = None if pairs.isdecimal() else Path(pairs)
    suite = "photos" if folder and suite == "pairs" else suite
    given: dict[str, Any] = {"methods": methods, "kind": kind, "inversions": inversions}
    given |= {"editors": editors, "pairs": pairs != _PAIRS, "count": count, "seed": seed}
    given |= {"seeds": seeds != "0-3", "every": every > 1, "step_size": step_size}
    given |= {"refinements": refinements is not None}
    _require_effects(suite, given)
    those.require_model(model, folder)
    if suite == "photos":
        asked = bench_photos.asked(kind, inversions, editors, folder, count, seed, pairs != _PAIRS)
        tables = bench_photos.tables(asked, out)
    elif suite == "edits":
        tables = _edited(kind, methods, pairs, out)
    else:
        options = {"every": every, "refinements": refinements, "step_size": step_size}
        tables = _steered(suite, methods, checks.seeds(seeds), out, **options)
    _run(tables, suite, model, (device, dtype), out, batch, as_json)


def _require_effects(suite: str, given: Mapping[str, Any]) -> None:
    """Raises typer.BadParameter for an option that a suite does not have."""
    taken = _EFFECTS.get(suite, _STEERING)
    idle = {name: bool(value) for name, value in given.items() if name not in taken}
    checks.effects(f"--suite {suite}", **idle)


def _run(
    tables: Mapping[str, Callable[..., Any]], suite: str, model: str, how: tuple[str, str],
    out: Path, batch: int, as_json: bool,
) -> None:  # fmt: skip
    """Makes the rows of all tables and tells them."""
    from attncontrol.bench import summary
    from attncontrol.bench.photos import table

    form: ModuleType = table if suite == "photos" else summary
    for name in tables:
        form.require_place(out, name)
    pipe = pipelines.opened(model, *how)
    call = {"batch": batch, "progress": _progress, **pipelines.call_of(model)}
    found = _tabled({name: partial(rows, pipe, **call) for name, rows in tables.items()}, form, out)
    _tell(found if suite in _EFFECTS else found[suite], form, as_json)


def _tabled(tables: Mapping[str, Callable[[], Any]], form: ModuleType, out: Path) -> dict[str, Any]:
    """Every table when its rows are made, also in files."""
    found = {}
    with work():
        for name, rows in tables.items():
            found[name] = form.summary(rows())
            with optional_chart():
                form.write(found[name], name, out)
    return found


def _tell(found: Any, form: ModuleType, as_json: bool) -> None:
    """One table, or several by their names."""
    if as_json:
        typer.echo(json.dumps(found))
    elif isinstance(found, dict):
        typer.echo("\n".join(f"{name}\n\n{form.markdown(lines)}" for name, lines in found.items()))
    else:
        typer.echo(form.markdown(found))


def _steered(
    suite: str, names: str | None, seeds: list[int], out: Path, *, step_size: Any, **options: Any
) -> dict[str, Callable[..., Any]]:
    """The one table of a suite, and what makes its rows."""
    chosen = _chosen(names, suite)
    options["step_sizes"] = _step_sizes(step_size, chosen)
    from attncontrol.bench.compare import run

    file = out / "pictures.csv"
    return {suite: partial(run, suite=suite, methods=chosen, seeds=seeds, file=file, **options)}


def _edited(
    kinds: str | None, names: str | None, pairs: str, out: Path
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
    options: dict[str, Any] = {"methods": chosen, "pairs": int(pairs), "folder": out}
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
