"""The contract of test-time losses, and their sums: ``SynGen() + 0.5 * Retention()``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from attncontrol.axes import Losses
from attncontrol.checks.arguments import Such, check, check_fields, takes
from attncontrol.errors import LossError, SettingError, WordError
from attncontrol.maps.step import StepMaps
from attncontrol.objectives.boxes import Layouts, require_layouts, words_of
from attncontrol.objectives.default import Default
from attncontrol.objectives.descent import Descent
from attncontrol.objectives.noise_search import NoiseSearch
from attncontrol.prompts.tokens import Subject
from attncontrol.prompts.words import Groups

ObjectiveLike = Callable[[StepMaps], Tensor]
"""An Objective, or a plain function of the maps of a step to [batch] losses."""


class Objective(ABC):
    """One loss per image from the maps of a step: L(maps) -> [batch], with a gradient.

    What an objective needs, and how it descends, it says in attributes. A final frozen dataclass
    below it sets those that differ from the defaults:

        @dataclass(frozen=True)
        class Brighter(Objective):
            remembers = True

            def __call__(self, maps): return -maps.mean().flatten(1).amax(1)
    """

    @Default
    def words(self) -> Groups | None:
        """The subjects that ``maps.subjects`` shall hold; None: the nouns of the prompt by its
        parse; ``()``: it needs none."""
        return ()

    @Default
    def descent(self) -> Descent:
        """The schedule of its steps."""
        return Descent()

    @Default
    def remembers(self) -> bool:
        """Whether it looks at ``maps.previous``."""
        return False

    @Default
    def self_attention(self) -> bool:
        """Whether it looks at ``maps.pictures``."""
        return False

    @Default
    def features(self) -> bool:
        """Whether it looks at ``maps.features``."""
        return False

    @Default
    def compares(self) -> bool:
        """Whether it compares with the first image of the batch."""
        return False

    @Default
    def search(self) -> NoiseSearch | None:
        """A search for the initial noise, before the first step."""
        return None

    def __post_init__(self) -> None:
        """Fields are what their annotations say; one of a subclass calls this one first."""
        check_fields(self)
        given = vars(self).get("words")
        if given in ((), [], {}) and given is not getattr(type(self), "words", None):
            raise WordError("words must name at least one, or be None: the nouns of the prompt")

    def acts(self, subjects: Sequence[Subject]) -> bool:  # noqa: ARG002  # others look at them
        """Whether it has anything to do for an image with these subjects; else it is left out."""
        return True

    @abstractmethod
    def __call__(self, maps: StepMaps) -> Tensor:
        """[batch] losses."""

    def __add__(self, other: object) -> "Objective":
        return self if _is_zero(other) else Sum((*terms_of(self), *terms_of(other)))

    def __radd__(self, other: object) -> "Objective":
        return self if _is_zero(other) else Sum((*terms_of(other), *terms_of(self)))

    def __mul__(self, weight: float | int) -> "Sum":
        check("the weight of a loss", weight, float)
        return Sum(tuple((float(weight) * w, term) for w, term in terms_of(self)))

    __rmul__ = __mul__


_ATTRIBUTES = [name for name, of in vars(Objective).items() if isinstance(of, Default)]


def _is_zero(value: object) -> bool:
    """The start of ``sum([...])``."""
    return type(value) is int and value == 0


def several(_: Objective, subjects: Sequence[Subject]) -> bool:
    """``acts`` of objectives that compare subjects."""
    return len(subjects) > 1


@dataclass(frozen=True)
class OfLayout(Objective):
    """An objective whose ``layout`` maps words of the prompt to boxes (left, top, right, bottom) in
    0 .. 1, or to masks (height, width) of any size; or prompts to such layouts. Raises SettingError
    for a bad layout."""

    layout: Annotated[
        Layouts, Such("a mapping of words to boxes, such as {'cat': (0.0, 0.2, 0.5, 0.9)}")
    ]

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layouts(self.layout)

    @property
    def words(self) -> Groups:
        return words_of(self.layout)


@dataclass(frozen=True)
class OfFunction(Objective):
    """A plain function as an objective: it sees the maps of all tokens and names no words."""

    function: ObjectiveLike

    def __call__(self, maps: StepMaps) -> Any:  # losses_of says what it should have been
        return self.function(maps)


@dataclass(frozen=True)
class Sum(Objective):
    """L = sum of w_k L_k. Each term finds its own words; schedule and search are those of the first
    term, and of the first that has one."""

    terms: tuple[tuple[float, Objective], ...]

    @property
    def words(self) -> Groups | None:
        """Those of all terms that need words. Raises SettingError if they differ: ``terms_of``
        gives every term by itself."""
        wanted = [term.words for _, term in self.terms if term.words != ()]
        if any(words != wanted[0] for words in wanted):
            raise SettingError(
                f"the terms of a sum look at different words, {' and '.join(map(repr, wanted))}: "
                "give each term, of terms_of(...), maps of its own"
            )
        return wanted[0] if wanted else ()

    @property
    def descent(self) -> Descent:
        return self.terms[0][1].descent

    @property
    def search(self) -> NoiseSearch | None:
        return next((term.search for _, term in self.terms if term.search is not None), None)

    @property
    def remembers(self) -> bool:
        return any(term.remembers for _, term in self.terms)

    @property
    def self_attention(self) -> bool:
        return any(term.self_attention for _, term in self.terms)

    @property
    def features(self) -> bool:
        return any(term.features for _, term in self.terms)

    @property
    def compares(self) -> bool:
        return any(term.compares for _, term in self.terms)

    def __call__(self, maps: StepMaps) -> Tensor:
        (weight, term), *rest = self.terms
        losses = weight * losses_of(term, maps)
        for weight, term in rest:
            losses = losses + weight * losses_of(term, maps)
        return losses


def as_objective(given: object) -> Objective:
    """The front door: an objective as it is, a plain function as an objective. Raises LossError for
    anything else."""
    if isinstance(given, Objective) and takes(given, 1):
        return given
    wanted = "an objective is an instance like SynGen(), or a function of the maps of a step alone"
    if isinstance(given, type):
        raise LossError(f"{given.__name__} is a class, and {wanted}: write {given.__name__}(...)")
    if not callable(given) or not takes(given, 1):
        by_name = " (attncontrol.losses.method finds one by its name)" if type(given) is str else ""
        raise LossError(f"{given!r} is no objective: {wanted}{by_name}")
    if own := [name for name in _ATTRIBUTES if hasattr(given, name)]:
        raise LossError(
            f"{_name(given)} sets {', '.join(own)}, which only an objective has: "
            "derive its class from attncontrol.Objective"
        )
    return OfFunction(given)


def terms_of(objective: object) -> tuple[tuple[float, Objective], ...]:
    """The weights and terms of an objective, a single one if it is no sum. Raises LossError if it
    is none."""
    objective = as_objective(objective)
    return objective.terms if isinstance(objective, Sum) else ((1.0, objective),)


def losses_of(objective: Objective, maps: StepMaps) -> Losses:
    """What the objective says of the maps, [batch]. Raises LossError if that is no tensor, not one
    loss per image, or does not depend on the maps although they have a gradient."""
    losses, name = objective(maps), _name(objective)
    images = len(next(iter(maps.layers.values())))
    wanted = f"one loss per image, a float tensor of shape [batch] = [{images}]"
    if not isinstance(losses, Tensor):
        raise LossError(
            f"{name} returned {type(losses).__name__} {losses!r}, not {wanted}: "
            "compute with torch alone, without .item(), float() and numpy"
        )
    if losses.shape != (images,) or not losses.is_floating_point():
        raise LossError(
            f"{name} returned {losses.dtype} of shape {list(losses.shape)}, not {wanted}: "
            "average over words and cells, not over images, as in maps.mean().flatten(1).mean(1)"
        )
    seen = (*maps.layers.values(), *maps.pictures.values(), *maps.features.values())
    if any(of_layer.requires_grad for of_layer in seen) and not losses.requires_grad:
        raise LossError(
            f"{name} returned losses without gradient, so that nothing can descend on them: leave "
            "out .detach(), .item() and torch.no_grad(); where it has nothing to say, return "
            "maps.mean().flatten(1).sum(1) * 0"
        )
    return losses


def _name(objective: object) -> str:
    """For messages."""
    named = objective.function if isinstance(objective, OfFunction) else objective
    return getattr(named, "__qualname__", type(named).__name__)
