"""One line per edited picture in a CSV file."""

from dataclasses import dataclass

from attncontrol.bench.photos.measures import Compared, Unedited
from attncontrol.bench.rows import Made


@dataclass(frozen=True)
class Cell(Made):
    """One edited picture of a cell: ``suite`` is the kind of edit, ``method`` the editor, ``seed``
    the number of the pair."""

    inversion: str


@dataclass(frozen=True)
class Costs:
    """What a picture cost, and how well the source came back."""

    rebuilt: float
    limit: float
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class PhotoRow(Costs, Compared, Cell):
    """Of a true scene."""

    shown: float
    kept: float
    iou: float

    @property
    def both(self) -> float:
        return self.shown * self.kept


@dataclass(frozen=True)
class FolderRow(Costs, Unedited, Compared, Cell):
    """Of a folder of pairs."""
