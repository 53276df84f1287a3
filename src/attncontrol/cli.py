"""The command line: a thin shell over the library."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from attncontrol.errors import AttnControlError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Record and edit attention inside text-to-image diffusion models."
)
console = Console(stderr=True)

Model = Annotated[str, typer.Option(help="'sprites' (bundled), a local pipeline folder, or a hub id.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


@app.callback()
def _main() -> None:
    import logging

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)


@contextmanager
def _clean_errors() -> Iterator[None]:
    try:
        yield
    except AttnControlError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}", highlight=False)
        raise typer.Exit(2) from error


def parse_seeds(text: str) -> list[int]:
    """ "0-3,8" -> [0, 1, 2, 3, 8]."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise typer.BadParameter(f"{text!r}: write seeds as 0-3,8")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return seeds


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help='For example "a cat and a frog".')] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file with one prompt per line.", exists=True, dir_okay=False)] = None,
    method: Annotated[str, typer.Option(help="attend-and-excite, or plain for no guidance.")] = "attend-and-excite",
    words: Annotated[str | None, typer.Option(help="Subjects, separated by commas. Default: the nouns of the prompt.")] = None,
    model: Model = "sprites",
    seeds: Annotated[str, typer.Option(help="For example 0-7 or 1,5,9.")] = "0-3",
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("attncontrol-out"),
    compare: Annotated[bool, typer.Option("--compare", help="Also generate without guidance and draw both in one grid.")] = False,
    steps: Annotated[int | None, typer.Option(help="Denoising steps. Default: 25 for sprites, else 50.", min=1)] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance scale. Default: 3 for sprites.")] = None,
    negative: Annotated[str | None, typer.Option(help="Negative prompt.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    step_size: Annotated[
        float | None, typer.Option(help="Step size of the guidance. Default: measured for the model family.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Pictures per pipeline call.", min=1)] = 4,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Generate pictures, with test-time guidance, word-map overlays and a comparison grid."""
    if (prompt is None) == (prompts is None):
        raise typer.BadParameter("give either a prompt or --prompts FILE")
    lines = [prompt] if prompt is not None else [line.strip() for line in (prompts or Path()).read_text("utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    seed_list = parse_seeds(seeds)
    with _clean_errors():
        import torch

        from attncontrol import batch as engine
        from attncontrol.descent import Descent
        from attncontrol.syntax import nouns

        if method not in (*engine.METHODS, "plain"):
            raise typer.BadParameter(f"--method {method}: choose from {', '.join((*engine.METHODS, 'plain'))}")
        if dtype not in ("float32", "float16", "bfloat16"):
            raise typer.BadParameter(f"--dtype {dtype}: choose from float32, float16, bfloat16")
        pipe = engine.load(model, device=device, dtype=getattr(torch, dtype))
        pipe.set_progress_bar_config(disable=True)
        options: dict[str, Any] = {"num_inference_steps": steps or (25 if model == "sprites" else 50)}
        guidance = 3.0 if guidance is None and model == "sprites" else guidance
        given = {"guidance_scale": guidance, "negative_prompt": negative, "height": height, "width": width}
        options |= {key: value for key, value in given.items() if value is not None}
        descent = Descent(step_size=step_size) if step_size is not None else None
        subjects = {line: words.split(",") if words else list(nouns(line)) for line in lines}
        methods = ["plain", method] if compare and method != "plain" else [method]
        out.mkdir(parents=True, exist_ok=True)
        report: list[dict[str, Any]] = []
        bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
        with bar:
            task = bar.add_task("generating", total=len(lines) * len(seed_list) * len(methods))
            for line in lines:
                made: dict[str, list[Any]] = {}
                for name in methods:
                    bar.update(task, description=f"{name}: {line}")
                    guided = {"descent": descent} if name != "plain" else {}
                    for picture in engine.generate(
                        pipe, line, seed_list, subjects[line], method=name, batch=batch, **guided, **options
                    ):
                        made.setdefault(name, []).append(picture)
                        bar.advance(task)
                report += _write(out, line, subjects[line], made, sprites=model == "sprites")
        settings = {"model": model, "dtype": dtype, "device": device, "seeds": seed_list, "call": options, "step_size": step_size}
        versions = {name: version(name) for name in ("attncontrol", "diffusers", "torch", "transformers")}
        result = {"settings": settings, "versions": versions, "words": subjects, "pictures": report}
        (out / "run.json").write_text(json.dumps(result, indent=1), "utf-8")
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _show(report, out)


def _write(out: Path, prompt: str, words: list[str], made: dict[str, list[Any]], *, sprites: bool) -> list[dict[str, Any]]:
    """Pictures, overlays and the comparison grid of one prompt; returns one record per picture."""
    from attncontrol.export.pictures import grid, overlay

    stem = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60]
    records = []
    for name, pictures in made.items():
        rows: dict[str, list[Any]] = {"picture": [picture.image for picture in pictures]}
        for word in words:
            rows[word] = [overlay(picture.image, picture.maps[word]) for picture in pictures]
        columns = [f"seed {picture.seed}" for picture in pictures]
        maps_file = out / f"{stem}.{name}.maps.png"
        grid(rows, columns, title=f"{prompt} ({name}); each map from its minimum to its maximum").save(maps_file)
        for picture in pictures:
            file = out / f"{stem}.{name}.{picture.seed}.png"
            picture.image.save(file)
            record = {key: value for key, value in vars(picture).items() if key not in ("image", "maps")}
            records.append(
                record | {"file": file.name, "maps_file": maps_file.name, "found": _found(picture.image) if sprites else None}
            )
    if len(made) > 1:
        columns = [f"seed {picture.seed}" for picture in next(iter(made.values()))]
        rows = {name: [picture.image for picture in pictures] for name, pictures in made.items()}
        grid(rows, columns, title=prompt).save(out / f"{stem}.compare.png")
    return records


def _found(image: Any) -> list[str]:
    from attncontrol.testbed.scorer import find

    return [finding.noun for finding in find([image])[0]]


def _show(report: list[dict[str, Any]], out: Path) -> None:
    table = Table("prompt", "method", "seed", "seconds", "found in the picture", "file")
    for row in report:
        found = "" if row["found"] is None else ", ".join(row["found"]) or "nothing"
        table.add_row(row["prompt"], row["method"], str(row["seed"]), f"{row['seconds']:.1f}", found, row["file"])
    console.print(table)
    console.print(f"Everything is in {out}/ (run.json repeats it).")


@app.command()
def tokens(prompt: str, model: Model = "sprites", as_json: Json = False) -> None:
    """Show how the model's tokenizer reads a prompt."""
    with _clean_errors():
        from attncontrol.batch import load
        from attncontrol.families import family_of
        from attncontrol.tokens import tokenize

        pipe = load(model)
        found = tokenize(family_of(pipe).tokenizer(pipe), prompt)
    if as_json:
        typer.echo(json.dumps([asdict(token) for token in found]))
        return
    table = Table("position", "id", "token", "text of the prompt")
    for token in found:
        table.add_row(str(token.index), str(token.id), token.text, prompt[token.start : token.end])
    console.print(table)


@app.command()
def sites(model: Model = "sprites", as_json: Json = False) -> None:
    """List the attention sites of a model."""
    with _clean_errors():
        from attncontrol.batch import load
        from attncontrol.families import family_of

        pipe = load(model)
        family = family_of(pipe)
        found = family.sites(family.denoiser(pipe))
    if as_json:
        typer.echo(json.dumps([asdict(site) for site in found]))
        return
    table = Table("site", "kind", "heads", "stride")
    for site in found:
        table.add_row(site.name, site.kind, str(site.heads), str(site.stride))
    console.print(table)


if __name__ == "__main__":
    app()
