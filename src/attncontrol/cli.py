"""The command line: a thin shell over the library."""

import json
import os
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

Model = Annotated[str, typer.Option(help="sprites, sprites-sd3, sprites-flux (bundled), a local pipeline folder, or a hub id.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


@app.callback()
def _main() -> None:
    """Import notes and loading bars of the libraries would bury what a command says."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from attncontrol.batch import quiet

    quiet()


@contextmanager
def _clean_errors() -> Iterator[None]:
    try:
        yield
    except AttnControlError as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}", highlight=False)
        raise typer.Exit(2) from error


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
    steps: Annotated[int | None, typer.Option(help="Denoising steps. Default: 25 for the bundled models, else 50.", min=1)] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance scale. Default for sprites: 2.")] = None,
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
    with _clean_errors():
        import torch

        from attncontrol import batch as engine
        from attncontrol import testbed
        from attncontrol.descent import Descent
        from attncontrol.export.folder import write
        from attncontrol.syntax import nouns
        from attncontrol.testbed.scorer import find

        try:
            seed_list = engine.parse_seeds(seeds)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        if method not in (*engine.METHODS, "plain"):
            raise typer.BadParameter(f"--method {method}: choose from {', '.join((*engine.METHODS, 'plain'))}")
        if dtype not in ("float32", "float16", "bfloat16"):
            raise typer.BadParameter(f"--dtype {dtype}: choose from float32, float16, bfloat16")
        pipe = engine.load(model, device=device, dtype=getattr(torch, dtype))
        pipe.set_progress_bar_config(disable=True)
        options: dict[str, Any] = {"num_inference_steps": 50} | dict(testbed.CALL.get(model, {}))
        scale = "true_cfg_scale" if "true_cfg_scale" in options else "guidance_scale"
        given = {"num_inference_steps": steps, scale: guidance, "negative_prompt": negative, "height": height, "width": width}
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
                report += write(out, line, subjects[line], made, find if model in testbed.MODELS else None)
        settings = {"model": model, "dtype": dtype, "device": device, "seeds": seed_list, "call": options, "step_size": step_size}
        versions = {name: version(name) for name in ("attncontrol", "diffusers", "torch", "transformers")}
        result = {"settings": settings, "versions": versions, "words": subjects, "pictures": report}
        (out / "run.json").write_text(json.dumps(result, indent=1), "utf-8")
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _show(report, out)


def _show(report: list[dict[str, Any]], out: Path) -> None:
    table = Table("prompt", "method", "seed", "seconds", "found in the picture")
    table.add_column("file", overflow="fold")
    for row in report:
        found = "" if row["found"] is None else ", ".join(row["found"]) or "nothing"
        table.add_row(row["prompt"], row["method"], str(row["seed"]), f"{row['seconds']:.1f}", found, row["file"])
    console.print(table)
    console.print(f"Everything is in {out}/ (run.json repeats it).")


@app.command()
def parse(prompt: str, as_json: Json = False) -> None:
    """Show the nouns of a prompt with their modifiers, as the losses see them."""
    with _clean_errors():
        from attncontrol.syntax import analyse

        found = analyse(prompt)
    rows = [{"noun": e.noun.text, "modifiers": [word.text for word in e.modifiers], "span": list(e.span)} for e in found]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        raise typer.BadParameter(f"no noun was found in {prompt!r}; name the words yourself with --words")
    table = Table("noun", "modifiers", "in the prompt")
    for entity in found:
        table.add_row(entity.noun.text, ", ".join(word.text for word in entity.modifiers), prompt[slice(*entity.span)])
    console.print(table)


@app.command()
def tokens(prompt: str, model: Model = "sprites", as_json: Json = False) -> None:
    """Show how the model's tokenizer reads a prompt."""
    with _clean_errors():
        from attncontrol.batch import load
        from attncontrol.families import default_encoding, family_of
        from attncontrol.testbed import CALL

        pipe = load(model)
        found = family_of(pipe).tokens(pipe, prompt, default_encoding(pipe) | dict(CALL.get(model, {})))
    if as_json:
        typer.echo(json.dumps([asdict(token) for token in found]))
        return
    table = Table("position", "id", "token", "text of the prompt")
    for token in found:
        table.add_row(str(token.index), str(token.id), token.text, prompt[token.start : token.end])
    console.print(table)


@app.command()
def sites(
    model: Model = "sprites",
    score: Annotated[bool, typer.Option("--score", help="Rank sites by how well word maps hit the true objects.")] = False,
    heads: Annotated[bool, typer.Option("--heads", help="With --score: rank every head too.")] = False,
    scenes: Annotated[int, typer.Option(help="With --score: scenes of the sprites world to look at.", min=1)] = 100,
    as_json: Json = False,
) -> None:
    """List the attention sites of a model, or rank those that look at text."""
    with _clean_errors():
        from attncontrol.batch import load
        from attncontrol.families import family_of

        pipe = load(model)
        family = family_of(pipe)
        found = family.sites(family.denoiser(pipe))
        if score:
            _rank(pipe, model, scenes, heads, as_json)
            return
    if as_json:
        typer.echo(json.dumps([asdict(site) for site in found]))
        return
    table = Table("site", "kind", "heads", "stride")
    for site in found:
        table.add_row(site.name, site.kind, str(site.heads), str(site.stride))
    console.print(table)


def _rank(pipe: Any, model: str, scenes: int, heads: bool, as_json: bool) -> None:
    """Scores of nouns, mean over timesteps, best first."""
    from attncontrol import testbed
    from attncontrol.analysis.grounding import mean_over_timesteps, score_sites
    from attncontrol.families import family_of
    from attncontrol.testbed.bench import examples
    from attncontrol.testbed.scenes import SIZE

    call = {key: value for key, value in testbed.CALL.get(model, {}).items() if key == "max_sequence_length"}
    config: Any = family_of(pipe).denoiser(pipe).config
    cells = getattr(pipe, "default_sample_size", None) or config.sample_size
    side = SIZE if model in testbed.MODELS else pipe.vae_scale_factor * cells
    scores = mean_over_timesteps(score_sites(pipe, examples(scenes, side=side), heads=heads, **call))
    if as_json:
        typer.echo(json.dumps([asdict(score) for score in scores]))
        return
    table = Table("site", "head", "pointing", "IoU", "words")
    for row in sorted(scores, key=lambda row: -row.pointing):
        table.add_row(row.site, "mean" if row.head is None else str(row.head), f"{row.pointing:.1%}", f"{row.iou:.2f}", str(row.n))
    console.print(table)


if __name__ == "__main__":
    app()
