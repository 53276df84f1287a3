"""What became of a picture of a job."""

from dataclasses import dataclass

from attncontrol.jobs.item import Item


@dataclass(frozen=True)
class Made:
    """``file`` and ``record``, relative to the folder of the job, are None if it failed for
    ``error``. ``pixels`` is the SHA-256 of the picture itself, ``losses`` are per guided step,
    before it, ``seconds`` a share of those of its batch, ``memory`` what its call held at most
    above what was held before, MiB; both are 0 of one whose row was lost."""

    item: Item
    file: str | None = None
    pixels: str | None = None
    record: str | None = None
    losses: tuple[float, ...] = ()
    refinements: tuple[int, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    memory: float = 0.0
