"""The methods that edit: a name is a part of the table, or several, ``replace+auto``, each around
those before it. ``replace@0.4`` has a strength, ``replace@curve`` stands for all of its curve;
``auto``, the objective, steers the sources too."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from attncontrol import losses
from attncontrol.attention.edit import Edit
from attncontrol.batch import edit_names
from attncontrol.batch.edit_methods import METHODS
from attncontrol.batch.options import image_to_image
from attncontrol.bench.edit_suite import placing
from attncontrol.bench.edit_suite.sources import Case, draw
from attncontrol.bench.prompts import groups_of
from attncontrol.bench.suites import EDITS
from attncontrol.edits.add_it import AddIt
from attncontrol.edits.all_to_key import AllToKey
from attncontrol.edits.move import Move
from attncontrol.edits.remove import Remove
from attncontrol.edits.within import Within
from attncontrol.errors import SettingError
from attncontrol.objectives.objective import Objective
from attncontrol.sprites.scenes import SIZE
from attncontrol.sprites.scorer import detect
from attncontrol.verbs.edit import edit
from attncontrol.verbs.places import On
from attncontrol.verbs.steer import steer

_CURVE = "curve"
ALL = tuple(EDITS)
PLACED = ("regions",)
WITH_SOURCE = tuple(kind for kind in EDITS if kind not in PLACED)


@dataclass(frozen=True, eq=False)
class Batch:
    """Cases of one call: image 2 k is the source of case k and image 2 k + 1 is made of it; without
    sources image k."""

    cases: Sequence[Case]

    @property
    def each(self) -> int:
        """Images of a case."""
        return 2 if self.cases[0].task.source else 1

    @property
    def jobs(self) -> list[tuple[str, int]]:
        tasks = [case.task for case in self.cases]
        pairs = [[(t.source_prompt, t.seed), (t.prompt, t.target_seed)] for t in tasks]
        return [job for pair in pairs for job in pair[-self.each :]]

    @property
    def sources(self) -> tuple[int, ...]:
        """Of every image."""
        return tuple(image - image % self.each for image in range(self.each * len(self.cases)))

    @property
    def targets(self) -> tuple[int, ...]:
        return tuple(range(self.each - 1, self.each * len(self.cases), self.each))


@dataclass(frozen=True)
class Part:
    """``make`` has a batch and a strength, None for the defaults, and gives an edit, a list of
    ``On``, an objective, a context, or a tuple of such, each inside those before it;
    ``strengths`` are those of its curve. Where ``sources`` are changed too, pictures are judged by
    those that came along."""

    make: Callable[[Batch, Any], Any]
    strengths: tuple[float, ...] = ()
    kinds: tuple[str, ...] = WITH_SOURCE
    sources: bool = False


def _auto(of: Batch, _: Any) -> Objective:
    return losses.method("auto", groups_of([prompt for prompt, _ in of.jobs]))


def _taking(name: str) -> Callable[[Batch, float | None], list[On]]:
    """A method of ``batch.edit_methods``, which takes attention from the source."""
    make, usual = METHODS[name]
    return lambda of, u: list(make(of.sources, usual if u is None else u))


def _remove(of: Batch, u: float | None) -> tuple[Edit, ...]:
    return tuple(
        Remove(placing.around(case), source=source, **_with(masked=u))
        for case, source in _alone(of)
    )


def _move(of: Batch, u: float | None) -> tuple[Edit, ...]:
    return tuple(
        Move(placing.around(case), (case.move[0] / SIZE, case.move[1] / SIZE), source=source,
             **_with(masked=u))
        for case, source in _alone(of)
    )  # fmt: skip


def _within(of: Batch, _: Any) -> tuple[Edit, ...]:
    return tuple(
        Within(placing.around(case), source=source, anew=case.task.before is None)
        for case, source in _alone(of)
    )


def _add_it(of: Batch, u: float | None) -> tuple[Edit, ...]:
    return tuple(
        AddIt(case.task.after.noun, source=source, **_with(gamma=u))
        for case, source in _alone(of)
        if case.task.after
    )


def _alone(of: Batch) -> Iterator[tuple[Case, tuple[int, ...]]]:
    """Every case, and sources of all images which are their own but for its target."""
    for case, target in zip(of.cases, of.targets, strict=True):
        numbers = range(len(of.jobs))
        yield case, tuple(of.sources[n] if n == target else n for n in numbers)


def _with(**setting: float | None) -> dict[str, Any]:
    return {name: value for name, value in setting.items() if value is not None}


_CURVES: Mapping[str, tuple[float, ...]] = {
    "blend": (0.0, 0.2, 0.4, 0.6, 0.8),
    "masactrl": (0.0, 0.2, 0.4, 0.6, 0.8),
    "style": (0.25, 0.5, 1.0),
}
PARTS: Mapping[str, Part] = {
    **{name: Part(_taking(name), _CURVES.get(name, (0.2, 0.4, 0.6, 0.8, 1.0))) for name in METHODS},
    "dense": Part(lambda of, u: placing.dense(of.cases, u), (0.5, 1.0, 2.0), PLACED),
    "regions": Part(lambda of, u: placing.regions(of.cases, u), (0.0, 0.2, 0.4), PLACED),
    "bounded": Part(lambda of, _: placing.bounded(of.cases), (), PLACED),
    "refined": Part(lambda of, _: placing.bounded(of.cases, placing.REFINE), (), PLACED),
    "guided": Part(lambda of, _: placing.guided(of.cases), (), PLACED),
    "placement": Part(lambda of, _: placing.placement(of.cases), (), PLACED),
    "remove": Part(_remove, (0.4, 0.6, 0.8), ("remove",)),
    "move": Part(_move, (0.4, 0.6, 0.8), ("move",)),
    "within": Part(_within, (), ("recolour", "swap", "remove", "add")),
    "add-it": Part(_add_it, (1.0, 1.05, 1.1, 1.2), ("add",)),
    "distributed": Part(lambda of, _: AllToKey("distributed", of.sources)),
    "progressive": Part(lambda of, _: AllToKey("progressive", of.sources)),
    "auto": Part(_auto, (), ALL, sources=True),
}
WHOLE: Mapping[str, Part] = {
    "same-seed": Part(lambda _, __: (), (), ALL),
    "sdedit": Part(lambda _, __: (), (0.3, 0.45, 0.6, 0.75, 0.9)),
}
"""Without attention: the new prompt from the same noise, and image to image (Meng et al. 2021,
arXiv 2108.01073) as diffusers does it, from the picture of the source."""
DEFAULTS = ("same-seed", f"sdedit@{_CURVE}", "replace")


def expanded(names: Sequence[str]) -> list[str]:
    """Names of methods, same-seed first, with those of their curves. Raises SettingError for
    unknown ones."""
    every = ["same-seed"]
    for name in names:
        base, _, strength = name.rpartition("@")
        if strength == _CURVE and "+" not in name:
            (part, _), *_ = parts(f"{base}@1")
            every += [f"{base}@{u:g}" for u in part.strengths]
        else:
            parts(name)
            every.append(name)
    return list(dict.fromkeys(every))


def parts(name: str) -> list[tuple[Part, float | None]]:
    """With their strengths. Raises SettingError."""
    known = PARTS if "+" in name else {**WHOLE, **PARTS}
    found = edit_names.parts(name, {base: bool(part.strengths) for base, part in known.items()})
    if name == "sdedit":
        raise SettingError(f"sdedit needs a strength: sdedit@0.6, or sdedit@{_CURVE}")
    return [(known[one.name], one.strength) for one in found]


def fits(name: str, kind: str) -> bool:
    return all(kind in part.kinds for part, _ in parts(name))


def settings(name: str, case: Case) -> str:
    """What a method is, in words, for one case."""
    return repr([part.make(Batch([case]), strength) for part, strength in parts(name)])


def make(
    pipe: Any, name: str, cases: Sequence[Case], **call: Any
) -> tuple[list[Image.Image], list[Image.Image]]:
    """Pictures of the targets, and those of the sources that were made along with them."""
    of = Batch(cases)
    targets = [of.jobs[image] for image in of.targets]
    base, _, strength = name.partition("@")
    if base == "same-seed":
        return draw(pipe, targets, call), []
    if base == "sdedit":
        given = {"image": [case.picture for case in cases], "strength": float(strength)}
        return draw(image_to_image(pipe), targets, call, **given), []
    with ExitStack() as stack:
        for one in changes(name, of):
            stack.enter_context(context(pipe, one))
        pictures = draw(pipe, of.jobs, call)
    every = enumerate(pictures)
    return [pictures[i] for i in of.targets], [p for i, p in every if i not in of.targets]


def changes(name: str, of: Batch) -> list[Any]:
    """Edits, lists of ``On``, objectives and contexts of a method, the outermost first."""
    made = [part.make(of, u) for part, u in reversed(parts(name))]
    return [one for each in made for one in (each if isinstance(each, tuple) else (each,))]


def judged_by(name: str, case: Case, source: Image.Image) -> Case:
    """A case with the source that a picture by this method is to be compared with."""
    if not any(part.sources for part, _ in parts(name)):
        return case
    return replace(case, picture=source, found=tuple(detect([source])[0]))


def context(pipe: Any, what: Any) -> AbstractContextManager[Any]:
    """Of one of ``changes``."""
    if isinstance(what, AbstractContextManager):
        return what
    return steer(pipe, what) if isinstance(what, Objective) else edit(pipe, what)
