"""A job: all its pictures, in order, each once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attncontrol.jobs.item import Item


@dataclass(frozen=True)
class Job:
    """``items`` are unique by their marks; before an edit stands its source, see ``source_of``.
    ``lines`` are those of a file that they come from, 0 of an item that comes from none.
    ``repeated`` counts what was asked for again."""

    items: tuple[Item, ...]
    lines: tuple[int, ...] = ()
    repeated: int = 0

    @classmethod
    def of(cls, items: Iterable[Item], lines: Sequence[int] | None = None) -> "Job":
        """With the sources of edits, without repetitions."""
        found: dict[str, tuple[Item, int]] = {}
        asked: set[str] = set()
        count = 0
        for i, item in enumerate(items):
            line = lines[i] if lines else 0
            if item.source is not None:
                source = source_of(item)
                found.setdefault(source.mark, (source, line))
            asked.add(item.mark)
            count += 1
            found.setdefault(item.mark, (item, line))
        kept = found.values()
        return cls(
            tuple(item for item, _ in kept), tuple(line for _, line in kept), count - len(asked)
        )

    def __len__(self) -> int:
        return len(self.items)


def source_of(item: Item) -> Item:
    """The picture that an edit takes from."""
    return item.original
