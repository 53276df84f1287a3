"""Options of ``attncontrol bench``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from attncontrol import sprites
from attncontrol.bench.suites import EDITS, INVERSIONS, PHOTOS, SUITES
from attncontrol.cli import checks, methods, paths

MOST_PAIRS = 10_000


def _kinds(text: str | None) -> str | None:
    kinds = [] if text is None else [kind.strip() for kind in text.split(",")]
    for kind in kinds:
        if kind not in EDITS:
            raise typer.BadParameter(f"{kind!r}: choose from {', '.join(EDITS)}")
    if len(kinds) > len(set(kinds)):
        raise typer.BadParameter(f"{text!r} names a kind twice")
    return text


def require_model(model: str, folder: Path | None, score: Sequence[str] | None) -> None:
    """Raises typer.BadParameter for a name that can be none of a model, and without a folder of
    pairs or scores for a model whose world no judge knows."""
    if folder is not None or score:
        checks.model(model)
    elif model not in sprites.MODELS:
        raise typer.BadParameter(
            f"{model!r}: pictures can be scored for {', '.join(sprites.MODELS)} only; those of "
            "others by --score, such as clip",
            param_hint="--model",
        )


def _inversions(text: str | None) -> str | None:
    for name in (checks.names(text) or INVERSIONS[0]).split(","):
        if name.strip() not in INVERSIONS:
            raise typer.BadParameter(f"{name!r}: choose from {', '.join(INVERSIONS)}")
    return text


def _pairs(text: str) -> str:
    if text.isascii() and text.isdigit():
        if not 2 <= int(text) <= MOST_PAIRS:
            raise typer.BadParameter(f"{text} is no number of pairs from 2 to {MOST_PAIRS}")
    elif not Path(text).is_dir():
        raise typer.BadParameter(f"{text!r}: give a number, or a folder of pairs")
    return text


Suite = Annotated[str, typer.Option(help=f"{', '.join(SUITES)}.", callback=checks.one_of(SUITES))]
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
Inversions = Annotated[
    str | None,
    typer.Option(
        help=f"Of the suite photos, separated by commas: {', '.join(INVERSIONS)}. Default: the "
        "first three.",
        callback=_inversions,
    ),
]
Editors = Annotated[
    str | None,
    typer.Option(
        help="Of the suite photos, separated by commas: none (the new prompt from the inverted "
        "noise), sdedit@0.6 (no inversion), and what --methods takes, such as replace, p2p@0.4, "
        "masactrl@curve. Default: none, replace, p2p, masactrl.",
        callback=checks.names,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(sprites.MODELS)}; with --pairs FOLDER or --score any that can be loaded."
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Your own in place of a suite: .txt, one a line, or a job's .jsonl, .csv or .yaml "
        "with words and boxes.",
        exists=True,
        dir_okay=False,
    ),
]
Workers = Annotated[int, typer.Option(help="Processes, each with a pipeline.", min=1, max=512)]
Kinds = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help=f"Of the suites edits and photos, separated by commas: {', '.join(EDITS)}; of photos "
        f"the first {len(PHOTOS)}. Default: all.",
        callback=_kinds,
    ),
]
Pairs = Annotated[
    str,
    typer.Option(
        help="How many pairs of each kind the suite edits has; or a folder of pictures to edit, in "
        "the layout of PIE-Bench: mapping_file.json and annotation_images/.",
        callback=_pairs,
        metavar="NUMBER|FOLDER",
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        help="How many pairs the suite photos has of each kind (default: 276), or a folder of each "
        "type (default: all).",
        min=2,
        max=MOST_PAIRS,
    ),
]
Seed = Annotated[int, typer.Option(help="Which scenes the suite photos has.", min=0, max=2**32)]
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
