"""``attncontrol bench``."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import typer

from attncontrol.batch import pipelines
from attncontrol.bench.suites import EDITS
from attncontrol.cli import bench_options as those
from attncontrol.cli import bench_photos, checks, compared, scoring
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console, optional_chart
from attncontrol.cli.bench_photos import Table
from attncontrol.cli.failures import work
from attncontrol.errors import SettingError

_PAIRS = "276"
_EFFECTS = {  # of options that not all suites have; those of all others are below
    "edits": {"methods", "kind", "pairs"},
    "photos": {"kind", "pairs", "inversions", "editors", "count", "seed"},
}
_STEERING = {"methods", "seeds", "every", "step_size", "refinements", "prompts", "score", "workers"}


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
    prompts: those.Prompts = None,
    score: scoring.Scores = None,
    clip_model: scoring.Clip = scoring.DEFAULT.clip,
    caption_model: scoring.Captions = scoring.DEFAULT.captions,
    vqa_model: scoring.Questions = scoring.DEFAULT.vqa,
    detector: scoring.Detector = scoring.DEFAULT.detector,
    step_size: those.StepSizes = None,
    refinements: those.Refinements = None,
    batch: of.Batch = 8,
    workers: those.Workers = 1,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    out: those.Out = Path("attncontrol-bench"),
    as_json: of.Json = False,
) -> None:
    """Compare methods from the same seeds: a table, a chart, and one line per picture; on a bundled
    model, or with --score on any.

    Columns: shares of pictures that show all nouns (present), in their colours (bound), in their
    boxes (iou, inside), the scorer's confidence, each with its gain over plain and a 95 % interval;
    time and memory are multiples of plain. Of edits: what was asked is shown, the rest kept, both,
    the overlap with what was replaced (iou), PSNR in dB outside of what changes and of the other
    thing, whose colour changed by tint. Of photos, pictures that exist: the distance to the exact
    target, inside and outside of what changes, and how well the inversion gives the picture back.
    """
    given = SimpleNamespace(**locals())
    given.folder = None if pairs.isdecimal() else Path(pairs)
    given.suite = "photos" if given.folder and suite == "pairs" else suite
    _require_effects(given)
    those.require_model(model, given.folder, score)
    if given.suite in _EFFECTS:
        _run(_tables(given), given)
    else:
        _tell(compared.table(given), as_json)


def _require_effects(given: Any) -> None:
    """Raises typer.BadParameter for an option that a suite does not have."""
    usual = {"pairs": _PAIRS, "seed": 0, "seeds": "0-3", "every": 1, "workers": 1}
    taken = _EFFECTS.get(given.suite, _STEERING)
    names = {*_STEERING, *(name for of_suite in _EFFECTS.values() for name in of_suite)}
    values = vars(given)
    idle = {
        name: values[name] not in (usual.get(name), None, [])
        for name in values
        if name in names - taken
    }
    checks.effects(f"--suite {given.suite}", **idle)


def _tables(given: Any) -> dict[str, Table]:
    """By their names."""
    if given.suite == "edits":
        return _edited(given.kind, given.methods, given.pairs, given.out)
    of_photos = given.inversions, given.editors, given.folder, given.count, given.seed
    asked = bench_photos.asked(given.kind, *of_photos, given.pairs != _PAIRS)
    return bench_photos.tables(asked, given.out)


def _run(tables: Mapping[str, Table], given: Any) -> None:
    """Makes the rows of all tables and tells them."""
    from attncontrol.bench import summary
    from attncontrol.bench.photos import table

    form: ModuleType = table if given.suite == "photos" else summary
    for name in tables:
        form.require_place(given.out, name)
    pipe = pipelines.opened(given.model, given.device, given.dtype)
    for one in tables.values():
        one.require(pipe)
    call = {"batch": given.batch, "progress": _progress, **pipelines.call_of(given.model)}
    made = {name: partial(one.rows, pipe, **call) for name, one in tables.items()}
    _tell(_tabled(made, form, given.out), given.as_json, form)


def _tabled(tables: Mapping[str, Callable[[], Any]], form: ModuleType, out: Path) -> dict[str, Any]:
    """Every table when its rows are made, also in files."""
    found = {}
    with work():
        for name, rows in tables.items():
            found[name] = form.summary(rows())
            with optional_chart():
                form.write(found[name], name, out)
    return found


def _tell(found: Any, as_json: bool, form: ModuleType | None = None) -> None:
    """One table, or several by their names."""
    from attncontrol.bench import summary

    form = form or summary
    if as_json:
        typer.echo(json.dumps(found))
    elif isinstance(found, dict):
        typer.echo("\n".join(f"{name}\n\n{form.markdown(lines)}" for name, lines in found.items()))
    else:
        typer.echo(form.markdown(found))


def _edited(kinds: str | None, names: str | None, pairs: str, out: Path) -> dict[str, Table]:
    """The table of every kind of edit."""
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
    return {
        f"edits-{kind}": Table(partial(run, kind=kind, **options), partial(_require, kind, chosen))
        for kind in of_kinds
    }


def _require(kind: str, methods: list[str], pipe: Any) -> None:
    from attncontrol.bench.edit_suite.methods import fits
    from attncontrol.bench.edit_suite.possible import require_methods

    require_methods(pipe, [name for name in methods if fits(name, kind)], kind)


def _progress(items: Any, description: str) -> Any:
    from rich.progress import track

    return track(items, description=description, console=console)
