"""Commands that look: ``parse``, ``tokens`` and ``sites``."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from attncontrol import sprites
from attncontrol.batch import pipelines
from attncontrol.cli import checks
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, console

SCENES = 100


@app.command(cls=PromptCommand)
def parse(prompt: of.Prompt, as_json: of.Json = False) -> None:
    """Show the subjects of a prompt with their modifiers, as the losses see them, and what is left
    out: tags, words for the picture itself, and nouns that cannot be seen."""
    from attncontrol.prompts.parser import without_torch
    from attncontrol.prompts.syntax import tell_apart

    with without_torch():
        found, left_out = tell_apart(prompt)
    rows = [
        {
            "noun": e.noun.text,
            "modifiers": [word.text for word in e.modifiers],
            "span": list(e.span),
        }
        for e in found
    ]
    if as_json:
        left = [{"text": o.text, "span": [o.start, o.end], "reason": o.reason} for o in left_out]
        typer.echo(json.dumps({"subjects": rows, "left_out": left}))
        return
    if not rows and not left_out:
        raise typer.BadParameter(
            f"no noun was found in {prompt!r}; name the words yourself with --words"
        )
    table = Table("noun", "modifiers", "in the prompt")
    for entity in found:
        table.add_row(
            entity.noun.text,
            ", ".join(word.text for word in entity.modifiers),
            prompt[slice(*entity.span)],
        )
    console.print(table)
    for out in left_out:
        console.print(f"left out: {out.text} ({out.reason})", markup=False)


@app.command(cls=PromptCommand)
def tokens(
    prompt: of.Prompt,
    model: of.Model = "sprites",
    device: of.Device = "cpu",
    as_json: of.Json = False,
) -> None:
    """Show how the model's tokenizer reads a prompt."""
    from attncontrol.families.known import family_of
    from attncontrol.families.parts import default_encoding

    pipe = pipelines.opened(model, device, "float32")
    call = default_encoding(pipe) | pipelines.call_of(model)
    found = family_of(pipe).tokens(pipe, prompt, call)
    if as_json:
        typer.echo(json.dumps([asdict(token) for token in found]))
        return
    table = Table("position", "id", "token", "text of the prompt")
    for token in found:
        table.add_row(str(token.index), str(token.id), token.text, prompt[token.start : token.end])
    console.print(table)


@app.command()
def sites(
    model: of.Model = "sprites",
    score: Annotated[
        bool, typer.Option("--score", help="Rank sites by how well word maps hit the true objects.")
    ] = False,
    heads: Annotated[
        bool, typer.Option("--heads", help="With --score: rank every head too.")
    ] = False,
    scenes: Annotated[
        int,
        typer.Option(
            help="With --score: scenes of the sprites world to look at.", min=1, max=10_000
        ),
    ] = SCENES,
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """List the attention sites of a model, or rank those that look at text."""
    from attncontrol.families.known import family_of

    idle = {"heads": heads, "scenes": scenes != SCENES}
    checks.effects("no --score", **{name: given and not score for name, given in idle.items()})
    pipe = pipelines.opened(model, device, dtype)
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
    from attncontrol.analysis.grounding import mean_over_timesteps, score_sites
    from attncontrol.bench.examples import examples
    from attncontrol.families.known import family_of
    from attncontrol.sprites.scenes import SIZE

    config: Any = family_of(pipe).denoiser(pipe).config
    cells = getattr(pipe, "default_sample_size", None) or config.sample_size
    side = SIZE if model in sprites.MODELS else pipe.vae_scale_factor * cells
    shown = examples(scenes, side=side)
    scores = mean_over_timesteps(
        score_sites(pipe, shown, heads=heads, **pipelines.reading_of(model))
    )
    if as_json:
        typer.echo(json.dumps([asdict(score) for score in scores]))
        return
    table = Table("site", "head", "pointing", "IoU", "words")
    for row in sorted(scores, key=lambda row: -row.pointing):
        table.add_row(
            row.site,
            "mean" if row.head is None else str(row.head),
            f"{row.pointing:.1%}",
            f"{row.iou:.2f}",
            str(row.n),
        )
    console.print(table)
