"""``attncontrol batch``: all pictures of a job."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from attncontrol.cli import checks, paths
from attncontrol.cli import options as of
from attncontrol.cli.app import app, console
from attncontrol.cli.failures import work
from attncontrol.cli.progress import counted

ENGINES = ("local", "ray")


def _place(text: str | Path | None) -> str | None:
    """A folder that can be made, or a URL."""
    if text is None or "://" in str(text):
        return None if text is None else str(text)
    return str(paths.folder(paths.named(text)))


JobFile = Annotated[
    Path | None,
    typer.Argument(
        help="File of the job, .yaml, .jsonl or .csv: prompts, seeds, methods and settings.",
        callback=paths.existing,
        show_default=False,
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        help="Folder of the pictures, or a URL of fsspec, such as s3://bucket/run. The same "
        "command again goes on where it was stopped.",
        callback=_place,
        show_default=False,
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="Check the whole file and show the plan; load nothing.")
]
Schema = Annotated[
    bool, typer.Option("--schema", help="Print the JSON schema of such files, for editors.")
]
Default = Annotated[
    list[str] | None,
    typer.Option(help="A field for all entries that do not give it, repeated: steps=20."),
]
Batch = Annotated[int, typer.Option(help="Most pictures per pipeline call.", min=1, max=10_000)]
Workers = Annotated[
    int, typer.Option(help="Processes, each with a pipeline; with cuda each a GPU.", min=1, max=512)
]
Engine = Annotated[
    str, typer.Option(help="local, or ray: actors of a cluster.", callback=checks.one_of(ENGINES))
]
Sheets = Annotated[
    bool, typer.Option("--sheets", help="Also a contact sheet of every prompt: methods by seeds.")
]
Estimated = Annotated[
    bool,
    typer.Option(
        "--estimate",
        help="With --check: make two pictures of every kind, to say how long it takes.",
    ),
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Read every picture; make again what is not what was made."),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Also make what failed before.")]


@app.command()
def batch(
    job: JobFile = None,
    out: Out = None,
    check: Check = False,
    estimate: Estimated = False,
    schema: Schema = False,
    default: Default = None,
    batch: Batch = 8,
    device: of.Device = "cpu",
    workers: Workers = 1,
    engine: Engine = "local",
    sheets: Sheets = False,
    retry_failed: Retry = False,
    verify: Verify = False,
    as_json: of.Json = False,
) -> None:
    """Make all pictures of a job: a file of prompts, seeds, methods, settings and edits."""
    if schema:
        from attncontrol.jobs.schema import schema as of_files

        typer.echo(json.dumps(of_files(), indent=1))
        return
    checks.effects("no --check", estimate=estimate and not check)
    if job is None:
        raise typer.BadParameter("give the file of a job", param_hint="JOB")
    if out is None and not check:
        raise typer.BadParameter("say where the pictures go, or --check", param_hint="--out")

    from attncontrol.jobs.files import read_job

    found = read_job(job, default or ())
    if check:
        _plan(found, batch, _estimated(found, out, device, estimate, retry_failed), as_json)
        return
    made = _made(
        found, out, batch=batch, device=device, workers=workers, engine=engine, sheets=sheets,
        retry_failed=retry_failed, verify=verify,
    )  # fmt: skip
    _end(made, str(out), as_json)


def _estimated(job: Any, out: str | None, device: str, make: bool, retry_failed: bool) -> Any:
    """None where nothing is known and nothing shall be made."""
    there = out is not None and "://" not in out and (Path(out) / "index.sqlite").exists()
    if not (make or there):
        return None
    from attncontrol.jobs.estimate import of_folder, of_pictures

    if not make:
        return of_folder(job, Path(str(out)), retry_failed)
    with work():
        return of_pictures(job, device)


def _plan(job: Any, size: int, estimate: Any, as_json: bool) -> None:
    from attncontrol.jobs.batches import plan

    batches = plan(job, size)
    methods = Counter(item.method for item in job.items)
    models = Counter(item.model for item in job.items)
    told = {"pictures": len(job), "calls": len(batches), "repeated": job.repeated}
    if as_json:
        about = {"methods": methods, "models": models, "estimate": estimate and vars(estimate)}
        typer.echo(json.dumps(told | about))
        return
    console.print(f"{len(job)} pictures in {len(batches)} calls of at most {size}")
    if job.repeated:
        console.print(f"{job.repeated} are asked for more than once, and made once")
    for name, counts in (("models", models), ("methods", methods)):
        listed = ", ".join(f"{each} {count}" for each, count in counts.most_common(20))
        console.print(f"{name}: {listed}", soft_wrap=True)
    if estimate is not None:
        console.print(
            f"{estimate.left} pictures are left: {_duration(estimate.seconds)} by one worker, "
            f"{estimate.bytes / 1e6:.1f} MB (from {estimate.measured} pictures, made one by one or "
            "as they were)",
            soft_wrap=True,
        )


def _duration(seconds: float) -> str:
    """ "1 h 5 min", "40 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _made(job: Any, out: Any, **options: Any) -> Any:
    from attncontrol.batch.options import quiet
    from attncontrol.jobs.engine import run

    quiet()
    with work(), counted("making", len(job)) as progress:
        return run(job, out, progress=progress, **options)


def _end(made: Any, out: str, as_json: bool) -> None:
    """Shows what was made, and ends with 1 if something failed."""
    failed = [each for each in made if each.error is not None]
    if as_json:
        errors = {each.item.name: each.error for each in failed}
        told = {"out": out, "made": len(made) - len(failed), "failed": errors}
        typer.echo(json.dumps(told))
    else:
        console.print(f"{len(made) - len(failed)} pictures are in {out}/pictures", soft_wrap=True)
    if failed:
        first = failed[0]
        console.print(
            f"{len(failed)} failed, {out}/index.sqlite says why; {first.item.prompt!r}, seed "
            f"{first.item.seed}: {first.error}",
            soft_wrap=True,
        )
        raise typer.Exit(1)
