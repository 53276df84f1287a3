"""Batches of items to pictures, with what fails kept apart from the rest."""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from attncontrol.batch.pipelines import opened
from attncontrol.errors import ModelError
from attncontrol.jobs.guiding import sources_of
from attncontrol.jobs.item import Item
from attncontrol.jobs.pictures import Painted, paint

_LONGEST = 2000  # characters of an error that is kept


@dataclass(frozen=True)
class Failed:
    """An item that cannot be made, and why."""

    item: Item
    error: str


@dataclass
class Maker:
    """Makes batches one after the other; holds one pipeline, and ``sizes``: of a kind of batch how
    many items fit into memory together. ``notes`` are what the user should hear."""

    device: str = "cpu"
    sizes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _held: tuple[str, Any] | None = None

    def make(self, rows: Sequence[Item], wanted: set[str]) -> Iterator[Painted | Failed]:
        """What became of the items of a batch whose names are ``wanted``, each once."""
        left = set(wanted)
        for found in self._parts(rows, left):
            if found.item.name in left:
                left.remove(found.item.name)
                yield found

    def _parts(self, rows: Sequence[Item], left: set[str]) -> Iterator[Painted | Failed]:
        """In the size that is known to fit."""
        units, size = units_of(rows), self.sizes.get(_kind(rows), len(rows))
        for start in range(0, len(units), size):
            part = rows_of(units[start : start + size])
            if any(row.name in left for row in part):
                yield from self._tried(part, left)

    def _tried(self, rows: Sequence[Item], left: set[str]) -> Iterator[Painted | Failed]:
        """All of them; halves where that fails, down to the item that cannot be made."""
        try:
            yield from list(paint(self._pipe(rows[-1]), rows))
            return
        except Exception as error:  # whatever it is, the others are made
            failure, full = error, is_memory(error)
        if self._held is None:  # no pipeline, in whatever size
            yield from (Failed(row, told(failure)) for row in rows)
            return
        units = units_of(rows)
        if full:
            self._shrink(rows, len(units))
        if len(units) == 1:
            yield Failed(rows[-1], told(failure))
            if rows[:-1]:
                yield from self._parts(rows[:-1], left)
        else:
            half = (len(units) + 1) // 2
            for part in (units[:half], units[half:]):
                yield from self._parts(rows_of(part), left)

    def _shrink(self, rows: Sequence[Item], units: int) -> None:
        size = (units + 1) // 2
        self.sizes[_kind(rows)] = size
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if units > 1:
            self.notes.append(
                f"not enough memory for {units} pictures of {rows[-1].method} together; from here "
                f"on {size}"
            )

    def _pipe(self, item: Item) -> Any:
        """Loaded once for items that follow each other. Raises ModelError."""
        key = repr((item.model, item.dtype, item.lora))
        if self._held is None or self._held[0] != key:
            self._held = None  # one at a time
            gc.collect()
            pipe = opened(item.model, self.device, item.dtype)
            _adapt(pipe, item)
            self._held = key, pipe
        return self._held[1]


def _adapt(pipe: Any, item: Item) -> None:
    """LoRAs with their weights. Raises ModelError."""
    names = [f"lora{number}" for number in range(len(item.lora))]
    try:
        for name, adapter in zip(names, item.lora, strict=True):
            pipe.load_lora_weights(adapter.path, adapter_name=name)
        if names:
            pipe.set_adapters(names, [adapter.scale for adapter in item.lora])
    except Exception as error:  # as diffusers, peft and the hub have it
        raise ModelError(f"{item.model} cannot have its LoRA: {told(error)}") from error


def units_of(rows: Sequence[Item]) -> list[list[Item]]:
    """What can be made apart: an item, and before it its source, if it has one. A row that is
    there for others alone is no unit."""
    sources = sources_of(rows)
    used = {source for number, source in enumerate(sources) if source != number}
    return [
        [row] if sources[number] == number else [rows[sources[number]], row]
        for number, row in enumerate(rows)
        if number not in used
    ]


def parts_of(rows: Sequence[Item]) -> Iterator[list[Item]]:
    """All that a batch can have been made in, where some of it failed or did not fit."""
    units = units_of(rows)
    for size in range(len(units), 0, -1):
        for start in range(len(units) - size + 1):
            yield rows_of(units[start : start + size])
    yield from ([row] for row in rows if row.source is None)


def rows_of(units: Sequence[Sequence[Item]]) -> list[Item]:
    """Of units together: a source that several share once."""
    return list({row.mark: row for unit in units for row in unit}.values())


def is_memory(error: BaseException) -> bool:
    """Whether fewer pictures at once may help."""
    out = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return out or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def told(error: BaseException) -> str:
    text = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())
    return f"{type(error).__name__}: {text}"[:_LONGEST]


def _kind(rows: Sequence[Item]) -> str:
    """Batches that need the same memory for every picture."""
    last = rows[-1]
    call = last.model, last.dtype, last.height, last.width, last.guidance, last.lora
    return repr((*call, last.method, bool(last.heads), any(row.record for row in rows)))
