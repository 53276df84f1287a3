"""The tables of ``attncontrol bench`` whose pictures are those of a job."""

from collections.abc import Mapping
from typing import Any

import typer

from attncontrol.batch.options import parse_step
from attncontrol.bench.suites import OWN
from attncontrol.cli import checks, methods
from attncontrol.cli.app import optional_chart
from attncontrol.cli.failures import work
from attncontrol.cli.progress import counted
from attncontrol.errors import SettingError


def table(given: Any) -> list[dict[str, Any]]:
    """The one of a suite, or of prompts of one's own, when its rows are made, also in files."""
    own = given.prompts is not None
    checks.effects("--prompts", suite=own and given.suite != "pairs", every=own and given.every > 1)
    suite, numbers = OWN if own else given.suite, checks.seeds(given.seeds)
    chosen = _chosen(given.methods, suite)
    settings: dict[str, Any] = {"model": given.model, "dtype": given.dtype}
    settings |= {"step_sizes": _step_sizes(given.step_size, chosen)}
    settings |= {"refinements": given.refinements}
    from attncontrol.batch.options import quiet
    from attncontrol.bench.compare import of_file, of_suite, run
    from attncontrol.bench.summary import require_place, summary, write

    if own:
        asked = of_file(given.prompts, chosen, given.seeds, **settings)
    else:
        asked = of_suite(suite, chosen, numbers, every=given.every, **settings)
    require_place(given.out, suite)
    scores = _scores(given, asked)
    quiet()
    with work(), counted("making", len(asked.job)) as progress:
        rows = run(
            asked, given.out, scores=scores, batch=given.batch, workers=given.workers,
            device=given.device, progress=progress,
        )  # fmt: skip
        lines = summary(rows)
        with optional_chart():
            write(lines, suite, given.out)
    return lines


def _scores(given: Any, asked: Any) -> Any:
    """Those that were named, None for those of the suite. Raises SettingError where these do not
    know a prompt."""
    from attncontrol.bench.compare import JOB
    from attncontrol.bench.prompts import things_of
    from attncontrol.scores.kept import Kept
    from attncontrol.scores.names import Models, require_scores
    from attncontrol.scores.score import scores_of

    if given.score:
        require_scores(given.score, [given.model])
        names = given.clip_model, given.caption_model, given.vqa_model, given.detector
        models = Models(*names)
        loaded = scores_of(given.score, models, given.device)
        return Kept.read(given.out / JOB, loaded, models).by_name()
    unknown = [item.prompt for item in asked.job.items if not things_of(item.prompt)]
    if unknown:
        raise SettingError(
            f"{unknown[0]!r} names nothing that the bundled models know: say by which --score its "
            "pictures are measured, such as clip"
        )
    return None


def _chosen(names: str | None, suite: str) -> list[str]:
    fitting = methods.names("layout" if suite == "layout" else "words")
    if suite == OWN and names is not None:
        fitting = methods.names()
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
