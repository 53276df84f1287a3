"""The command that makes attention records, ``record``, and what ``maps`` shares with it."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from attncontrol.batch import pipelines
from attncontrol.cli import checks, methods, paths, photos
from attncontrol.cli import options as of
from attncontrol.cli.app import PromptCommand, app, console
from attncontrol.cli.failures import work

ENCODINGS = ("float32", "float16", "bfloat16", "sqrt8")


def _axes(keep: str) -> str:
    if unknown := set(keep.split(",")) - {"step", "head", ""}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from step, head")
    return keep


Words = Annotated[
    str | None,
    typer.Option(
        help="Words, separated by commas; 'all' for every token. Default: nouns and modifiers.",
        callback=checks.names,
    ),
]
Keep = Annotated[
    str,
    typer.Option(
        help="Axes that are kept, not averaged: step, head or both, separated by a comma.",
        callback=_axes,
    ),
]
Uncond = Annotated[
    bool,
    typer.Option("--uncond", help="Also the unconditional branch of classifier-free guidance."),
]
Encoding = Annotated[
    str, typer.Option(help=f"{', '.join(ENCODINGS)} (8 bits).", callback=checks.one_of(ENCODINGS))
]
Record = Annotated[
    Path,
    typer.Option(
        help="A file *.safetensors, or a folder that gets every step when it is done.",
        callback=paths.record_path,
        parser=paths.named,
        metavar="PATH",
    ),
]


@app.command(cls=PromptCommand)
def record(
    prompt: of.Prompt,
    words: Words = None,
    photo: photos.Photo = None,
    inversion: photos.Inversion = None,
    model: of.Model = "sprites",
    method: of.Method = "plain",
    box: of.Box = None,
    step_size: of.StepSize = None,
    seed: of.Seed = 0,
    steps: of.Steps = None,
    guidance: of.Guidance = None,
    negative: of.Negative = None,
    height: of.Height = None,
    width: of.Width = None,
    keep: Keep = "step,head",
    uncond: Uncond = False,
    encoding: Encoding = "float16",
    out: Record = Path("record.safetensors"),
    device: of.Device = "cpu",
    dtype: of.Dtype = "float32",
    as_json: of.Json = False,
) -> None:
    """Generate one picture and keep what its words attended to, for attncontrol inspect; or go
    through the same steps with one that exists, --photo."""
    boxes = _boxes(prompt, method, box, step_size)
    require_place(out)
    call = pipelines.call_of(model, steps, guidance, negative, height, width, exact=bool(photo))
    options = _options(model, call, keep, uncond, out, encoding)
    named = words_of(prompt, words)
    shown = _shown(photo, inversion, method, seed, (prompt, model, call))
    pipe = pipelines.opened(model, device, dtype)
    picture = photos.picture_of(photos.prepared(pipe), shown) if shown else None
    guiding = methods.steering(pipe, method, None, boxes, step_size)
    with work():
        if shown:
            maps = _retraced(pipe, shown, picture, named, options, out)
        else:
            maps = _recorded(pipe, prompt, named, seed, guiding, options, call)
        if "to" not in options:
            save_record(maps, out, encoding)
    report(out, maps, _size(out), as_json)


def _boxes(prompt: str, method: str, texts: list[str] | None, step_size: str | None) -> Any:
    """Those that the method is given. Raises typer.BadParameter where they do not fit it, and for a
    step of no method."""
    boxes = checks.boxes(texts)
    methods.check(method, boxes)
    checks.words_in([prompt], boxes, "--box")
    checks.effects("--method plain", step_size=method == "plain" and step_size is not None)
    return boxes


def _options(
    model: str, call: dict[str, Any], keep: str, uncond: bool, out: Path, encoding: str
) -> dict[str, Any]:
    """Of ``record``: a folder gets every step."""
    if uncond:
        pipelines.require_guidance(model, call, "--uncond")
    branches = ("cond", "uncond") if uncond else ("cond",)
    stream = {} if out.suffix == ".safetensors" else {"to": out, "encoding": encoding}
    return {"keep": axes_of(keep), "branches": branches} | stream


def _size(out: Path) -> int:
    files = [out] if out.suffix == ".safetensors" else out.glob("*.safetensors")
    return sum(file.stat().st_size for file in files)


class _Shown(NamedTuple):
    """A photo and all that its trajectory depends on."""

    photo: Any
    prompt: str
    model: str
    call: dict[str, Any]


def _shown(
    photo: Path | None, inversion: str | None, method: str, seed: int, rest: tuple[str, str, Any]
) -> _Shown | None:
    """The photo that is recorded, if one is. Raises typer.BadParameter for what is no picture, and
    for options that do nothing, or would change it."""
    if photo is None:
        checks.effects("generated pictures, only with --photo", inversion=bool(inversion))
        return None
    checks.effects("--photo, whose noise is found", seed=seed > 0)
    checks.effects("--photo, which nothing guides", method=method != "plain")
    return _Shown(photos.photograph(photo, inversion), *rest)


def _retraced(
    pipe: Any, shown: _Shown, picture: Any, words: Any, options: dict[str, Any], out: Path
) -> Any:
    """The maps of every step from the noise of a photo back to it, with the photo."""
    from attncontrol.verbs.record import record
    from attncontrol.verbs.retrace import retrace

    start = photos.trajectory(pipe, shown, picture, out)
    height, width = start.size
    with retrace(pipe, start), record(pipe, words, **options) as maps:
        pipe(prompt=shown.prompt, **shown.call | {"height": height, "width": width})
        maps.pictures = start.pictures
    return maps


def _recorded(
    pipe: Any,
    prompt: str,
    words: list[str] | None,
    seed: int,
    guiding: AbstractContextManager[Any],
    options: dict[str, Any],
    call: dict[str, Any],
) -> Any:
    """The maps of one picture, with the picture."""
    import torch

    from attncontrol.verbs.record import record

    generator = torch.Generator().manual_seed(seed)
    with guiding, record(pipe, words, **options) as maps:
        maps.pictures = pipe(prompt=prompt, generator=generator, **call)[0]
    return maps


def save_record(maps: Any, out: Path, encoding: Any = "float32") -> None:
    from attncontrol.maps.store import save

    save(maps, out, encoding=encoding)


def require_place(out: Path, *inputs: Path) -> None:
    """Raises WriteError for a place that the record cannot take, before it is made."""
    from attncontrol.maps.store import is_record
    from attncontrol.maps.streaming import require_steps_alone
    from attncontrol.writing import require_free

    if out.suffix == ".safetensors":
        require_free(out, is_record, inputs=inputs)
    else:
        require_steps_alone(out)


def report(out: Path, maps: Any, size: int, as_json: bool) -> None:
    if as_json:
        about = {"bytes": size, "words": maps.labels[0], "steps": len(maps.steps)}
        typer.echo(json.dumps({"record": str(out)} | about))
        return
    console.print(
        f"{out}: {len(maps.layers)} layers, {len(maps.steps)} steps, {size / 1e6:.1f} MB. "
        f"attncontrol inspect {out} --open",
        soft_wrap=True,
    )


def words_of(prompt: str, words: str | None) -> list[str] | None:
    """Of the option ``--words``. Raises typer.BadParameter for words that are not
    in the prompt, WordError if none are given and the prompt has no noun."""
    from attncontrol.prompts.syntax import subjects_of

    if words == "all":
        return None
    if words is not None:
        given = [word.strip() for word in words.split(",")]
        checks.words_in([prompt], given)
        return given
    found = [word.text for each in subjects_of(prompt) for word in (each.noun, *each.modifiers)]
    return [word for word in dict.fromkeys(found) if any(map(str.isalnum, word))]


def axes_of(keep: str) -> tuple[Any, ...]:
    return tuple(axis for axis in keep.split(",") if axis)
