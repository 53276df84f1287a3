"""A score: a function of pictures and of what was asked of them."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Real
from typing import Any

from PIL import Image

from attncontrol.errors import SettingError
from attncontrol.jobs.item import Item
from attncontrol.listing import named
from attncontrol.scores.names import NEEDS, SPRITES, Models, require_scores

Score = Callable[[Sequence[Image.Image], Sequence[Item]], Sequence[float]]
"""One number for every picture, NaN where it says nothing about it."""


def scores_of(
    names: Iterable[str], models: Models | None = None, device: str = "cpu"
) -> dict[str, Score]:
    """The scores of ``names.ABOUT``, and "module:function" of one's own, by their names. Every
    model is loaded once, now.

        scores = scores_of(["clip", "my_scores:sharpness"], Models(clip="models/clip"))
        values_of("clip", scores["clip"], pictures, items)

    Raises SettingError for a name that is none, ModelError for a model that cannot be loaded.
    """
    wanted = list(names)
    require_scores(wanted, [])
    loaded = _Loaded(models or Models(), device)
    return {name: _score(name, loaded) for name in wanted}


def values_of(
    name: str, score: Score, pictures: Sequence[Image.Image], items: Sequence[Item]
) -> list[float]:
    """Checked. Raises SettingError for anything but a finite number, or NaN, for every picture."""
    given = score(pictures, items)
    try:
        values = [each.item() if hasattr(each, "item") else each for each in given]
    except (TypeError, ValueError, RuntimeError):
        values = []
    wrong = [each for each in values if not isinstance(each, Real) or math.isinf(each)]
    if len(values) != len(pictures) or wrong:
        said = f"the value {wrong[0]!r}" if wrong else f"{len(values)} values"
        raise SettingError(
            f"score {name!r} gave {said} for {len(pictures)} pictures; "
            "it has to give a finite number, or NaN, for each"
        )
    return [float(each) for each in values]


class _Loaded:
    """Models that scores share, by their kinds."""

    def __init__(self, models: Models, device: str):
        self._models, self._device, self._made = models, device, dict[str, Any]()

    def __call__(self, kind: str) -> Any:
        if kind not in self._made:
            self._made[kind] = self._load(kind)
        return self._made[kind]

    def _load(self, kind: str) -> Any:
        from attncontrol.scores.blip import Captions, Questions
        from attncontrol.scores.clip import Clip
        from attncontrol.scores.detector import Detector
        from attncontrol.scores.sprites import Sprites

        if kind == "sprites":
            return Sprites()
        kinds: dict[str, Any] = {
            "clip": Clip, "captions": Captions, "vqa": Questions, "detector": Detector,
        }  # fmt: skip
        return kinds[kind](getattr(self._models, kind), self._device)


def _score(name: str, loaded: _Loaded) -> Score:
    if name in SPRITES:
        return partial(loaded("sprites"), name)
    if name not in NEEDS:
        return _own(name)
    first, *others = (loaded(kind) for kind in NEEDS[name])
    score: Score = first.score(name, *others)
    return score


def _own(name: str) -> Score:
    function = named(name)
    if not callable(function):
        raise SettingError(f"score {name!r} is {type(function).__name__}, no function")
    own: Score = function
    return own
