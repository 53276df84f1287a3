"""The bundled scorer, which knows the nouns and colours of the sprites world."""

from collections.abc import Sequence

from PIL import Image

from attncontrol.bench.prompts import things_of
from attncontrol.bench.shown import shown
from attncontrol.jobs.item import Item
from attncontrol.scores.loading import OfLast
from attncontrol.sprites.scorer import Detection, detect


class Sprites:
    """``present``, ``bound`` and ``confidence`` as ``attncontrol bench`` has them; NaN of a prompt
    without a noun of this world."""

    def __init__(self) -> None:
        self._detections = OfLast(_detected)

    def __call__(
        self, name: str, pictures: Sequence[Image.Image], items: Sequence[Item]
    ) -> list[float]:
        return [
            float(getattr(shown(item.prompt, found), name))
            if things_of(item.prompt)
            else float("nan")
            for item, found in zip(items, self._detections(pictures), strict=True)
        ]


def _detected(pictures: Sequence[Image.Image]) -> list[Sequence[Detection]]:
    """The network takes pictures of one size."""
    found: dict[int, Sequence[Detection]] = {}
    for size in {picture.size for picture in pictures}:
        places = [k for k, picture in enumerate(pictures) if picture.size == size]
        found |= dict(zip(places, detect([pictures[k] for k in places]), strict=True))
    return [found[k] for k in range(len(pictures))]
