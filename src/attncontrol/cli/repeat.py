"""``--from run.json``: a run again, exactly."""

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli.app import command_line, console
from attncontrol.errors import AttnControlError, ResultsError

From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="run.json of a run to make again, exactly. All settings are those of the run.",
        exists=True,
        dir_okay=False,
    ),
]
_BESIDE = {"source", "out", "as_json"}


def earlier(ctx: typer.Context, file: Path, kind: type[Any]) -> Any:
    """The run of a file. Raises typer.BadParameter for other options beside it, ResultsError for a
    file that is none, and for a method in a module of the user's that was not named again."""
    from attncontrol.batch.runs import load_run
    from attncontrol.verbs.about import versions

    run = load_run(file, kind)
    method = run.settings.method
    named = ctx.params.get("method") == method  # a file from elsewhere may not say what is imported
    for name in set(ctx.params) - _BESIDE - ({"method"} if named else set()):
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"--from repeats the settings of the run; --{name.replace('_', '-')} cannot be "
                "changed beside it, only --out and --json",
                param_hint="--from",
            )
    if ":" in method and not named:
        raise ResultsError(
            f"{file} runs your own code, {method}; to say that this is meant, add --method {method}"
        )
    for name, version in versions().items():
        if run.versions.get(name) != version:
            console.print(
                f"The run was made with {name} {run.versions.get(name)}, this is {version}: "
                "pictures may differ"
            )
    return run


@contextmanager
def of_file(file: Path) -> Iterator[None]:
    """Names the file in what is wrong with its settings. Raises ResultsError."""
    try:
        yield
    except (typer.BadParameter, AttnControlError) as error:
        raise ResultsError(f"{file}: {error}") from error


def end(run: Any) -> None:
    """Ends with 1 if a prompt failed."""
    if run.failed:
        first, prompts = run.failed[0], {unit.prompt for unit in run.settings.units}
        console.print(
            f"{len(run.failed)} of {len(prompts)} prompts failed, run.json names them; "
            f"{first.prompt!r}: {first.error}",
            soft_wrap=True,
        )
        raise typer.Exit(1)


def anew(ctx: typer.Context, run: Any) -> Any:
    """What was asked of a run, of which nothing is made yet."""
    from attncontrol.verbs.about import versions

    late = {name: None for name in ("scheduler", "parameters") if hasattr(run.settings, name)}
    return run.model_copy(
        update={
            "command": shlex.join(command_line(ctx)),
            "settings": run.settings.model_copy(update=late),
            "versions": versions(),
            "pictures": [],
            "seal": "",
            "failed": [],
            "complete": False,
        }
    )


def complete(pipe: Any, wanted: Any, **late: Any) -> Any:
    """Settings with what is known when the pipeline is there; it gets the scheduler of the run that
    is repeated. Raises ResultsError where something else differs from that run."""
    from attncontrol.batch.options import schedule
    from attncontrol.batch.resume import require_same

    if wanted.scheduler is not None:
        schedule(pipe, wanted.scheduler)
    late["scheduler"] = json.loads(pipe.scheduler.to_json_string())
    settings = type(wanted)(**wanted.model_dump() | late)
    require_same(wanted, settings)
    return settings
