"""What acts on the pictures of one call of a pipeline: of items, the contexts around it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields, is_dataclass, replace
from typing import Any

from attncontrol import losses
from attncontrol.batch.edit_changes import place_of
from attncontrol.batch.edit_methods import edits_of
from attncontrol.batch.edit_names import AUTO, editing
from attncontrol.batch.generate import generate
from attncontrol.batch.options import parse_step
from attncontrol.edits.move import Move
from attncontrol.edits.regions import Regions
from attncontrol.edits.remove import Remove
from attncontrol.edits.soft_identity import SoftIdentity
from attncontrol.errors import SettingError
from attncontrol.jobs.item import Item
from attncontrol.prompts.syntax import subjects_of
from attncontrol.verbs.edit import edit
from attncontrol.verbs.perturb import perturb
from attncontrol.verbs.places import On, PerImage
from attncontrol.verbs.steer import Trace, steer

ALONE = ("regions", "remove", "move")
"""Methods with a call of its own for every picture, and for its source."""
_DESCENT = "descent."


def sources_of(rows: Sequence[Item]) -> tuple[int, ...]:
    """For every row the number of that of its source, its own if it has none. Raises SettingError
    for a source that is not among them."""
    plain = {(row.prompt, row.seed): k for k, row in enumerate(rows) if row.source is None}
    found = []
    for number, row in enumerate(rows):
        source = number if row.source is None else plain.get((row.source, row.seed))
        if source is None:
            raise SettingError(f"{row.source!r}, the source of {row.prompt!r}, is not in its batch")
        found.append(source)
    return tuple(found)


def enter(stack: ExitStack, pipe: Any, rows: Sequence[Item], call: Mapping[str, Any]) -> None:
    """Edits and weakened heads."""
    sources = sources_of(rows)
    if edits := _edits(pipe, rows, sources, call):
        stack.enter_context(edit(pipe, edits))
    if rows[-1].heads:
        heads: Any = [row.heads or [] for row in rows]
        same = all(each == heads[0] for each in heads)
        chosen = heads[0] if same else PerImage(tuple(heads))
        weak, scale = SoftIdentity(rows[-1].u), rows[-1].heads_scale
        stack.enter_context(perturb(pipe, weak, scale=scale, heads=chosen))


def steering(stack: ExitStack, pipe: Any, rows: Sequence[Item]) -> Trace | None:
    """What steers the rows that are to be steered; None if none are."""
    made = objective(rows)
    if made is None:
        return None
    steered = tuple(k for k, row in enumerate(rows) if _method(row) == _method(rows[-1]))
    images = None if len(steered) == len(rows) else steered
    own, descent = made
    return stack.enter_context(steer(pipe, own, descent=descent, images=images))


def objective(rows: Sequence[Item]) -> tuple[Any, Any] | None:
    """That of the last row, with the words and boxes of all, and its descent."""
    last = rows[-1]
    method = _method(last)
    if method is None:
        return None
    of_edit = last.source is not None
    rows = [row for row in rows if _method(row) == method]
    words = None if of_edit else _words(rows)
    boxes = {row.prompt: row.boxes for row in rows if row.boxes and not of_edit}
    made = losses.method(method, words, boxes or None)
    told = {} if of_edit else last.parameters
    own = {name: value for name, value in told.items() if not name.startswith(_DESCENT)}
    (made,) = with_fields([made], own, method)
    return made, _descent(made.descent, told, last)


def _descent(descent: Any, told: Mapping[str, Any], item: Item) -> Any:
    given = {
        name.removeprefix(_DESCENT): value
        for name, value in told.items()
        if name.startswith(_DESCENT)
    }
    if "thresholds" in given:  # names in JSON are texts
        given["thresholds"] = {float(k): float(v) for k, v in given["thresholds"].items()}
    if item.step_size is not None and item.source is None:
        given["step_size"] = parse_step(str(item.step_size))
    (changed,) = with_fields([descent], given, "its descent")
    return changed


def with_fields(objects: Sequence[Any], given: Mapping[str, Any], what: str) -> list[Any]:
    """Dataclasses with these fields where they have them. Raises SettingError for one that none
    has."""
    known = [{f.name for f in fields(each)} if is_dataclass(each) else set() for each in objects]
    if unknown := sorted(given.keys() - set().union(*known)):
        has = ", ".join(sorted(set().union(*known))) or "no parameters"
        raise SettingError(f"{what} has no parameter {unknown[0]}: it has {has}")
    return [
        replace(each, **mine) if (mine := {k: v for k, v in given.items() if k in own}) else each
        for each, own in zip(objects, known, strict=True)
    ]


def _method(row: Item) -> str | None:
    """The loss that steers a picture."""
    if row.method == "plain" or row.method in ALONE:
        return None
    if row.source is None:
        return row.method
    return AUTO if editing(row.method)[1] else None


def _words(rows: Sequence[Item]) -> dict[str, Any] | None:
    """By prompt; those that some rows name are named for the others by the parse."""
    if all(row.words is None for row in rows):
        return None
    return {
        row.prompt: [
            [*(word.text for word in each.modifiers), each.noun.text]
            for each in subjects_of(row.prompt)
        ]
        if row.words is None
        else row.words
        for row in rows
    }


def _edits(
    pipe: Any, rows: Sequence[Item], sources: tuple[int, ...], call: Mapping[str, Any]
) -> list[On]:
    """Of the last row, for all that have its method."""
    last, number = rows[-1], len(rows) - 1
    if last.method == "regions":
        made = [On(Regions(dict(last.regions), images=(number,)))]
    elif last.method in ALONE:
        made = [On(_placed(pipe, last, call))]
    elif last.source is not None:
        made = edits_of(last.method, sources, pipe)
    else:
        return []
    changed = with_fields([on.edit for on in made], last.parameters, last.method)
    return [replace(on, edit=one) for on, one in zip(made, changed, strict=True)]


def _placed(pipe: Any, item: Item, call: Mapping[str, Any]) -> Remove | Move:
    """Where the source shows the word: it is made once more for that."""
    word = item.remove or (item.move or ("", 0, 0))[0]
    source = item.source or item.prompt
    (found,) = generate(pipe, [(source, item.seed)], [word], batch=1, **call)
    place = place_of(found.maps[word])
    return Remove(place) if item.move is None else Move(place, by=item.move[1:])
