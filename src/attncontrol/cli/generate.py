"""``attncontrol generate``."""

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from attncontrol.cli.app import Dtype, Json, Model, app, clean_errors, console, precision


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help='For example "a cat and a frog".')] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Text file with one prompt per line.", exists=True, dir_okay=False),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="How to guide: auto, or for example syngen or boxdiff; plain for not at all."
        ),
    ] = "attend-and-excite",
    words: Annotated[
        str | None,
        typer.Option(
            help="Subjects, separated by commas; modifiers before a '+': red+car. Default: by the parse."
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="For layout methods, repeated: word=left,top,right,bottom in fractions of the picture."
        ),
    ] = None,
    model: Model = "sprites",
    seeds: Annotated[str, typer.Option(help="For example 0-7 or 1,5,9.")] = "0-3",
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("attncontrol-out"),
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Also generate without guidance and draw both in one grid."),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(help="Denoising steps. Default: 25 for the bundled models, else 50.", min=1),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance scale. Default for sprites: 2.")
    ] = None,
    negative: Annotated[str | None, typer.Option(help="Negative prompt.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    step_size: Annotated[
        float | None,
        typer.Option(help="Step size of the guidance. Default: measured for the model family."),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(
            help="Heads to weaken: the result of heads search.", exists=True, dir_okay=False
        ),
    ] = None,
    heads_scale: Annotated[
        float, typer.Option(help="With --heads: w in e + w (e - e_weakened).")
    ] = 3.0,
    u: Annotated[
        float,
        typer.Option(
            help="With --heads: how much of them becomes the identity (SoftPAG).", min=0, max=1
        ),
    ] = 1.0,
    batch: Annotated[int, typer.Option(help="Pictures per pipeline call.", min=1)] = 4,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Generate pictures, with test-time guidance, word-map overlays and a comparison grid."""
    if (prompt is None) == (prompts is None):
        raise typer.BadParameter("give either a prompt or --prompts FILE")
    lines = (
        [prompt]
        if prompt is not None
        else [line.strip() for line in (prompts or Path()).read_text("utf-8").splitlines()]
    )
    lines = [line for line in lines if line and not line.startswith("#")]
    with clean_errors():
        from attncontrol import losses, sprites
        from attncontrol.batch import generate as engine
        from attncontrol.batch.head_search import load_heads
        from attncontrol.edits.soft_identity import SoftIdentity
        from attncontrol.export.folder import write
        from attncontrol.objectives.descent import Descent
        from attncontrol.prompts.syntax import nouns
        from attncontrol.sprites.scorer import find
        from attncontrol.verbs.perturb import perturb

        try:
            seed_list = engine.parse_seeds(seeds)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        boxes = _boxes(box or [])
        known = (*losses.methods(), "plain")
        if ":" not in method and method not in known:
            raise typer.BadParameter(f"--method {method}: choose from {', '.join(known)}")
        of_layout = [name for name, needs in losses.methods().items() if needs == "layout"]
        if ":" not in method and bool(boxes) != (method in of_layout):
            raise typer.BadParameter(
                f"--box word=left,top,right,bottom belongs to {', '.join(of_layout)}, which need it"
            )
        pipe = engine.load(model, device=device, dtype=precision(dtype))
        pipe.set_progress_bar_config(disable=True)
        options = engine.guided(
            {"num_inference_steps": 50} | dict(sprites.CALL.get(model, {})), guidance
        )
        given = {
            "num_inference_steps": steps,
            "negative_prompt": negative,
            "height": height,
            "width": width,
        }
        options |= {key: value for key, value in given.items() if value is not None}
        groups = [word.split("+") for word in words.split(",")] if words else None
        objective: Any = None
        if method != "plain":
            objective = losses.method(method, None if boxes else groups, boxes or None)
        default = objective.descent if objective else Descent()
        descent = default if step_size is None else replace(default, step_size=step_size)
        shown = list(boxes) or ([group[-1] for group in groups] if groups else None)
        subjects = {line: shown or list(nouns(line)) for line in lines}
        weakened = (
            partial(perturb, pipe, SoftIdentity(u), scale=heads_scale, heads=load_heads(heads))
            if heads
            else nullcontext
        )
        guided_name = (
            "+".join(
                part
                for part in (method if method != "plain" else "", "heads" if heads else "")
                if part
            )
            or "plain"
        )
        methods = ["plain", guided_name] if compare and guided_name != "plain" else [guided_name]
        out.mkdir(parents=True, exist_ok=True)
        report: list[dict[str, Any]] = []
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        with bar:
            task = bar.add_task("generating", total=len(lines) * len(seed_list) * len(methods))
            for line in lines:
                made: dict[str, list[Any]] = {}
                for name in methods:
                    bar.update(task, description=f"{name}: {line}")
                    guided = (
                        {"objective": objective, "descent": descent, "around": weakened}
                        if name != "plain"
                        else {}
                    )
                    for picture in engine.generate(
                        pipe,
                        [(line, seed) for seed in seed_list],
                        subjects[line],
                        method=name,
                        batch=batch,
                        **guided,
                        **options,
                    ):
                        made.setdefault(name, []).append(picture)
                        bar.advance(task)
                report += write(
                    out,
                    line,
                    subjects[line],
                    made,
                    find if model in sprites.MODELS else None,
                    boxes,
                )
        settings: dict[str, Any] = {
            "model": model,
            "dtype": dtype,
            "device": device,
            "seeds": seed_list,
            "call": options,
            "step_size": step_size,
            "boxes": boxes,
        }
        settings |= (
            {"heads": load_heads(heads), "heads_scale": heads_scale, "u": u} if heads else {}
        )
        versions = {
            name: version(name) for name in ("attncontrol", "diffusers", "torch", "transformers")
        }
        result = {"settings": settings, "versions": versions, "words": subjects, "pictures": report}
        (out / "run.json").write_text(json.dumps(result, indent=1), "utf-8")
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _show(report, out)


def _boxes(texts: list[str]) -> dict[str, tuple[float, float, float, float]]:
    """``["cat=0,0.2,0.5,1"]`` -> {"cat": (0.0, 0.2, 0.5, 1.0)}."""
    boxes = {}
    for text in texts:
        word, _, numbers = text.rpartition("=")
        try:
            left, top, right, bottom = map(float, numbers.split(","))
        except ValueError as error:
            raise typer.BadParameter(
                f"--box {text}: write word=left,top,right,bottom in fractions of the picture"
            ) from error
        boxes[word] = (left, top, right, bottom)
    return boxes


def _show(report: list[dict[str, Any]], out: Path) -> None:
    """One line per prompt and seed: what each method shows, or the seconds it took where no scorer
    knows."""
    methods = list(dict.fromkeys(row["method"] for row in report))
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for row in report:
        found = (
            f"{row['seconds']:.1f} s"
            if row["found"] is None
            else ", ".join(row["found"]) or "nothing"
        )
        cells.setdefault((row["prompt"], row["seed"]), {})[row["method"]] = found
    table = Table("prompt", "seed", *methods)
    for (prompt, seed), found_by in cells.items():
        table.add_row(prompt, str(seed), *(found_by[method] for method in methods))
    console.print(table)
    console.print(f"Pictures, maps and run.json, which repeats it, are in {out}/")
