"""What acts on the pictures of one call of a pipeline: of items, the contexts around it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from attncontrol import losses
from attncontrol.attention.edit import Edit
from attncontrol.batch.chosen_heads import weakening
from attncontrol.batch.edit_changes import edits_for
from attncontrol.batch.edit_names import AUTO, editing
from attncontrol.batch.edit_pictures import place_in
from attncontrol.batch.method_names import CHANGES, PLAIN
from attncontrol.batch.options import parse_step
from attncontrol.errors import SettingError
from attncontrol.jobs.item import Item
from attncontrol.jobs.job import source_of
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.objective import Objective
from attncontrol.prompts.syntax import subjects_of
from attncontrol.verbs.edit import edit
from attncontrol.verbs.places import On

ALONE = CHANGES
"""Methods with a call of its own for every picture, and for its source."""
_DESCENT = "descent."
T = TypeVar("T")


def sources_of(rows: Sequence[Item]) -> tuple[int, ...]:
    """For every row the number of that of its source, its own if it has none. Raises SettingError
    for a source that is not among them."""
    places = {row.mark: k for k, row in enumerate(rows)}
    found = []
    for number, row in enumerate(rows):
        source = number if row.source is None else places.get(source_of(row).mark)
        if source is None:
            raise SettingError(f"{row.source!r}, the source of {row.prompt!r}, is not in its batch")
        found.append(source)
    return tuple(found)


@contextmanager
def acting(pipe: Any, rows: Sequence[Item], call: Mapping[str, Any]) -> Iterator[None]:
    """Edits and weakened heads, which all rows of a batch have alike."""
    with ExitStack() as stack:
        if edits := _edits(pipe, rows, call):
            stack.enter_context(edit(pipe, edits))
        stack.enter_context(weakening(pipe, rows[-1])())
        yield


def objective(rows: Sequence[Item]) -> tuple[Objective, Descent] | tuple[None, None]:
    """What steers the rows, with the words and boxes of all; None if nothing does."""
    last = rows[-1]
    if (method := _loss(last)) is None:
        return None, None
    boxes = {row.prompt: row.boxes for row in rows if row.boxes}
    made = losses.method(method, _words(rows), boxes or None)
    of_descent = {
        name.removeprefix(_DESCENT): value
        for name, value in last.parameters.items()
        if name.startswith(_DESCENT)
    }
    own = {name: value for name, value in last.parameters.items() if not name.startswith(_DESCENT)}
    if "thresholds" in of_descent:  # names in JSON are texts
        of_descent["thresholds"] = {float(k): v for k, v in of_descent["thresholds"].items()}
    if last.step_size is not None:
        of_descent["step_size"] = parse_step(str(last.step_size))
    made = _with_fields(made, own, method)
    return made, _with_fields(made.descent, of_descent, "its descent")


def _with_fields(given: T, values: Mapping[str, Any], what: str) -> T:
    """Raises SettingError for a field that there is none of."""
    known = {f.name for f in fields(given)} if is_dataclass(given) else set()
    if unknown := sorted(values.keys() - known):
        has = ", ".join(sorted(known)) or "none"
        raise SettingError(f"{what} has no parameter {unknown[0]}; it has: {has}")
    return replace(given, **values) if values else given  # type: ignore[type-var]


def _loss(row: Item) -> str | None:
    """That which steers a picture; ``auto`` of an edit steers its source too, which has it."""
    if row.method == PLAIN or row.method in ALONE:
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


def _edits(pipe: Any, rows: Sequence[Item], call: Mapping[str, Any]) -> Edit | list[On]:
    """Of all rows; of ``ALONE`` for the last one."""
    last, place = rows[-1], None
    if last.source is None and last.method not in ALONE:
        return []
    if word := last.remove or (last.move and last.move[0]):
        place = place_in(pipe, last.source or last.prompt, last.seed, word, call)
    return edits_for(last, place, pipe, sources_of(rows), image=len(rows) - 1)
