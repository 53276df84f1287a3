"""What was done, as a command line and as Python."""

import shlex
from collections.abc import Iterator
from typing import Any

from attncontrol.app.asked import Asked, Settings
from attncontrol.batch.edit_names import AUTO, editing
from attncontrol.batch.method_names import CHANGES, PLAIN
from attncontrol.batch.options import step_of
from attncontrol.batch.pipelines import call_of
from attncontrol.batch.short_forms import Box
from attncontrol.jobs.item import Item
from attncontrol.sprites import MODELS


def command(asked: Asked) -> str:
    """Of ``attncontrol generate`` or ``edit``; it makes the same pictures."""
    item = asked.last[0]
    words = _of_edit(item) if item.source is not None else _of_guided(item)
    if len(asked.arms) > 1:
        words = [*words, "--compare"]
    return shlex.join(["attncontrol", *words, *_of_settings(asked.settings)])


def _of_guided(item: Item) -> list[str]:
    words = ["generate", item.prompt, "--method", item.method]
    if item.words:
        words += ["--words", ",".join("+".join(group) for group in item.words)]
    for word, box in item.boxes.items():
        words += ["--box", _boxed(word, box)]
    return words + ([] if item.step_size is None else ["--step-size", str(item.step_size)])


def _of_edit(item: Item) -> list[str]:
    words = ["edit", str(item.source)]
    if item.prompt != item.source:
        words += ["--to", item.prompt]
    if item.method not in CHANGES:
        words += ["--method", item.method]
    if item.remove:
        words += ["--remove", item.remove]
    if item.move:
        word, right, down = item.move
        words += ["--move", f"{word}={right:g},{down:g}"]
    for text, box in item.regions.items():
        words += ["--region", _boxed(text, box)]
    return words


def _of_settings(settings: Settings) -> Iterator[str]:
    """Options, but for those that say what is usual."""
    yield from ("--seeds", settings.seeds.replace(" ", ""))
    usual = Settings()
    for name in ("model", "steps", "guidance", "negative", "device", "dtype"):
        value = getattr(settings, name).strip()
        if value not in ("", getattr(usual, name)):
            yield from (f"--{name}", value)


def _boxed(word: str, box: Box) -> str:
    return f"{word}={','.join(f'{side:g}' for side in box)}"


def python(asked: Asked) -> str:
    """A script that makes the pictures of the last arm, and what they are edited from."""
    item = asked.last[0]
    call = f"call = {call_of(item.model, *_size(item))!r}"
    lines = _edited(asked, item) if item.source is not None else _guided(asked, item)
    return "\n".join([*_imports(item), "", _loaded(asked.settings), call, *lines, ""])


def _size(item: Item) -> tuple[Any, ...]:
    return item.steps, item.guidance, item.negative, item.height, item.width


def _imports(item: Item) -> Iterator[str]:
    steered, edits = _steered(item), item.source is not None
    names = {"edit": edits, "losses": steered, "record": not edits, "steer": steered}
    names["sprites"] = item.model in MODELS
    yield from ("from dataclasses import replace", "") if item.step_size is not None else ()
    yield from ("import torch", "from diffusers import DiffusionPipeline", "")
    yield f"from attncontrol import {', '.join(sorted(name for name in names if names[name]))}"
    if edits and item.method not in CHANGES:
        yield "from attncontrol.batch.edit_methods import edits_of"
    if item.remove or item.move:
        yield "from attncontrol.batch.edit_pictures import place_in"
    if item.method in CHANGES:
        yield f"from attncontrol.edits import {item.method.capitalize()}"
    if _share(item) is not None:
        yield "from attncontrol.objectives.descent import Relative"


def _loaded(settings: Settings) -> str:
    bundled = settings.model in MODELS
    source = f"sprites.path({settings.model!r})" if bundled else repr(settings.model)
    made = f"DiffusionPipeline.from_pretrained({source}, dtype=torch.{settings.dtype})"
    return f"pipe = {made}.to({settings.device!r})"


def _steered(item: Item) -> bool:
    if item.source is None:
        return item.method != PLAIN
    return item.method not in CHANGES and editing(item.method)[1]


def _share(item: Item) -> float | None:
    size, share = step_of(str(item.step_size or 0))
    return size / 100 if share else None


def _guided(asked: Asked, item: Item) -> Iterator[str]:
    yield f"prompt = {item.prompt!r}"
    contexts = [f"record(pipe, {list(asked.words)!r}) as maps"]
    if _steered(item):
        given = f", words={item.words!r}" if item.words else ""
        given += f", layout={dict(item.boxes)!r}" if item.boxes else ""
        yield f"objective = losses.method({item.method!r}{given})"
        contexts = [f"steer(pipe, objective{_descent(item)})", *contexts]
    yield from (
        f"for seed in {asked.seeds}:",
        "    generator = torch.Generator().manual_seed(seed)",
        f"    with {', '.join(contexts)}:",
        "        maps.pictures = pipe(prompt, generator=generator, **call).images",
        '    maps.pictures[0].save(f"{seed}.png")',
        '    maps.sheet().save(f"{seed}.maps.png")  # what every word attends to',
    )


def _descent(item: Item) -> str:
    if item.step_size is None:
        return ""
    share = _share(item)
    size = item.step_size if share is None else f"Relative({share:g})"
    return f", descent=replace(objective.descent, step_size={size})"


def _edited(asked: Asked, item: Item) -> Iterator[str]:
    contexts = f"edit(pipe, {_change(item)})"
    if _steered(item):
        contexts += f", steer(pipe, losses.method({AUTO!r}))"
    negative = f' | {{"negative_prompt": {[item.negative] * 2!r}}}' if item.negative else ""
    arguments = f"**(call{negative})" if negative else "**call"
    yield from (
        f"source = {item.source!r}",
        f"to = {item.prompt!r}",
        f"for seed in {asked.seeds}:",
        "    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]",
        f"    with {contexts}:",
        f"        pictures = pipe([source, to], generator=generators, {arguments}).images",
        '    pictures[0].save(f"{seed}.source.png")',
        '    pictures[1].save(f"{seed}.png")',
    )


def _change(item: Item) -> str:
    if item.method not in CHANGES:
        return f"edits_of({item.method!r}, 0, pipe)"
    if item.regions:
        return f"Regions({dict(item.regions)!r}, images=(1,))"
    word, *by = item.move or (item.remove,)
    place = f"place_in(pipe, source, seed, {word!r}, call)"
    return f"Move({place}, by={tuple(by)!r})" if item.move else f"Remove({place})"
