"""Which pictures of a job are made in one call of the pipeline."""

from collections import defaultdict, deque
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from attncontrol.jobs.item import Item
from attncontrol.jobs.job import Job, source_of

_OF_A_CALL = {
    "model", "dtype", "lora", "height", "width", "steps", "guidance", "negative", "method",
    "parameters", "step_size", "heads", "heads_scale", "u", "remove", "move",
}  # fmt: skip
"""Fields that all pictures of a call share."""
_OPEN = 16  # calls of a kind that a picture may still join


@dataclass(frozen=True)
class Batch:
    """``items`` are the rows of a call. ``sources`` are for each the row that it is edited from,
    None for one that is not edited. ``made`` are the rows whose pictures this batch is there for: a
    source that several calls need is kept from the first."""

    items: tuple[Item, ...]
    sources: tuple[int | None, ...]
    made: tuple[int, ...]

    @property
    def own(self) -> tuple[Item, ...]:
        return tuple(self.items[row] for row in self.made)


@dataclass(frozen=True)
class Plan:
    """Every picture of a job in one of its batches, those of one model and LoRA after another."""

    batches: tuple[Batch, ...]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def plan(job: Job, batch: int, kept: Set[str] = frozenset()) -> Plan:
    """Batches of at most ``batch`` pictures, sources among them, in the order of the job; an edit
    and its source are two. It depends on the job, ``batch`` and ``kept`` alone, the marks of
    sources whose pictures are there from elsewhere."""
    sources = {source_of(item).mark for item in job.items if item.source is not None}
    calls = _Calls(max(batch, 1), kept)
    for item in job.items:
        if item.source is not None or item.mark not in sources:
            calls.add(item)
    loads: dict[str, int] = {}
    for call in calls.all:
        loads.setdefault(_load(call.items[0]), len(loads))
    order = sorted(calls.all, key=lambda call: loads[_load(call.items[0])])  # stable
    return Plan(tuple(Batch(tuple(c.items), tuple(c.sources), tuple(c.made)) for c in order))


def _load(item: Item) -> str:
    """What has to be loaded for it."""
    return item.model_dump_json(include={"model", "dtype", "lora"})


@dataclass
class _Call:
    items: list[Item] = field(default_factory=list)
    sources: list[int | None] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    """Of every prompt what is given by its words."""
    rows: dict[str, int] = field(default_factory=dict)
    """Of every source, by its mark."""


class _Calls:
    def __init__(self, size: int, kept: Set[str]):
        self.size = size
        self.all: list[_Call] = []
        self.open: dict[str, deque[_Call]] = defaultdict(lambda: deque(maxlen=_OPEN))
        self.kept = set(kept)

    def add(self, item: Item) -> None:
        """To the first call that it fits."""
        source = source_of(item) if item.source is not None else None
        told = item.model_dump_json(include={"words", "boxes", "regions", "record"})
        calls = self.open[_key(item)]
        for call in calls:
            rows = 1 + (source is not None and source.mark not in call.rows)
            fits = len(call.items) + rows <= self.size
            if fits and call.told.get(item.prompt, told) == told:
                break
        else:
            call = _Call()
            self.all.append(call)
            calls.append(call)
        self.put(call, item, source)
        call.told[item.prompt] = told
        if len(call.items) >= self.size or item.remove or item.move:
            calls.remove(call)

    def put(self, call: _Call, item: Item, source: Item | None) -> None:
        if source and source.mark not in call.rows:
            call.rows[source.mark] = len(call.items)
            if source.mark not in self.kept:
                call.made.append(len(call.items))
                self.kept.add(source.mark)
            call.items.append(source)
            call.sources.append(None)
        call.made.append(len(call.items))
        call.items.append(item)
        call.sources.append(call.rows[source.mark] if source else None)


def _key(item: Item) -> str:
    recorded = "record" if item.record else ""
    edited = "edit" if item.source is not None else ""
    return item.model_dump_json(include=_OF_A_CALL, exclude_defaults=True) + recorded + edited
