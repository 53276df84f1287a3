"""What shall be recorded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from attncontrol.attention.between import Direction
from attncontrol.maps.recording import BranchText
from attncontrol.maps.streaming import Stream
from attncontrol.prompts.text import Text
from attncontrol.prompts.words import Words
from attncontrol.running.wiring import Sites
from attncontrol.verbs.branches import texts_of

Axis = Literal["step", "head"]


@dataclass(frozen=True, eq=False)
class Wish:
    """What shall be recorded; see ``record``."""

    words: Words | None
    sites: Sites
    direction: Direction
    kept: frozenset[str]
    branches: tuple[str, ...]
    steps: Collection[int] | None
    limit: float
    stream: Stream | None

    def has_step(self, index: int) -> bool:
        return self.steps is None or index in self.steps

    def texts(self, text: Text, branches: Sequence[str]) -> dict[str, BranchText]:
        return texts_of(text, branches, self.words, self.direction)
