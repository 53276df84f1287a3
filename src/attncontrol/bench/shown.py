"""What a picture of the sprites world shows of its prompt."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attncontrol.bench.prompts import things_of
from attncontrol.sprites.scenes import Thing
from attncontrol.sprites.scorer import Detection, shows


class Shown(NamedTuple):
    """Whether all nouns are shown, whether they are in their colours, 1 or 0, and how sure the
    scorer is of those that are, NaN of none."""

    present: float
    bound: float
    confidence: float


def shown(prompt: str, detections: Sequence[Detection]) -> Shown:
    things = things_of(prompt)
    nouns = {thing.noun for thing in things}
    return Shown(
        float(all(shows(detections, Thing(noun)) for noun in nouns)),
        float(all(shows(detections, thing) for thing in things)),
        mean([each.confidence for each in detections if each.noun in nouns]),
    )


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else float("nan")
