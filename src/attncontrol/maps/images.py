"""Records of other images: some of one record, or those of several together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attncontrol.errors import RecordError
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.recording import BranchText
from attncontrol.maps.taken import TakenOver

_TEXT = ("prompts", "tokens", "spans")


def images_of(maps: AttentionMaps, numbers: Sequence[int]) -> AttentionMaps:
    """Some of the images, by their numbers; which was whose source is not known any more, what they
    took over is."""
    chosen, taken = list(numbers), maps.taken
    cells = None if taken is None or taken.cells is None else taken.cells[chosen]
    words = {name: of[chosen] for name, of in taken.words.items()} if taken else {}
    return maps.replace(
        layers={name: of_layer[chosen] for name, of_layer in maps.layers.items()},
        **_text(maps, chosen),
        others={branch: BranchText(**_text(of, chosen)) for branch, of in maps.others.items()},
        about=_about(maps, _picked(seeds_of(maps), chosen)),
        taken=taken and TakenOver(tuple(range(len(chosen))), cells, words),
        pictures=_picked(maps.pictures, chosen),
    )


def joined(records: Sequence[AttentionMaps]) -> AttentionMaps:
    """The images of several records of the same sites, steps, branches and words. Raises
    RecordError for others."""
    first = records[0]
    for each in records[1:]:
        for name in ("shapes", "steps", "branches", "labels", "direction"):
            if getattr(each, name) != getattr(first, name):
                raise RecordError(f"records of other {name} cannot be shown together")
    pictures = [picture for each in records for picture in each.pictures]
    count = sum(len(each.prompts) for each in records)
    return first.replace(
        layers={name: torch.cat([each.layers[name] for each in records]) for name in first.layers},
        **_texts(records),
        others={
            branch: BranchText(**_texts([each.others[branch] for each in records]))
            for branch in first.others
        },
        about=_about(first, [seed for each in records for seed in seeds_of(each)]),
        taken=_taken(records),
        pictures=pictures if len(pictures) == count else (),
    )


def _text(of: Any, chosen: Sequence[int]) -> dict[str, Any]:
    return {name: tuple(_picked(getattr(of, name), chosen)) for name in _TEXT}


def _texts(several: Sequence[Any]) -> dict[str, Any]:
    return {name: tuple(one for of in several for one in getattr(of, name)) for name in _TEXT}


def _picked(values: Sequence[Any], chosen: Sequence[int]) -> list[Any]:
    """None where there are none."""
    return [values[number] for number in chosen] if len(values) else []


def seeds_of(maps: AttentionMaps) -> list[Any]:
    """One for every image, or none."""
    seeds = maps.about.get("seeds")
    return seeds if isinstance(seeds, list) and len(seeds) == len(maps.prompts) else []


def _about(maps: AttentionMaps, seeds: list[Any]) -> dict[str, Any]:
    return {**maps.about, "seeds": seeds}


def _taken(records: Sequence[AttentionMaps]) -> TakenOver | None:
    every = [each.taken for each in records]
    known = [taken for taken in every if taken is not None]
    if len(known) < len(every):
        return None
    sources: list[int] = []
    for taken in known:
        first = len(sources)
        sources += [first + of for of in taken.sources]
    cells = [taken.cells for taken in known if taken.cells is not None]
    names = dict.fromkeys(name for taken in known for name in taken.words)
    words = {name: torch.cat([_words(each, name) for each in records]) for name in names}
    return TakenOver(tuple(sources), torch.cat(cells) if len(cells) == len(known) else None, words)


def _words(maps: AttentionMaps, name: str) -> Tensor:
    """[image step token], zeros where no edit said anything."""
    found = maps.taken and maps.taken.words.get(name)
    if isinstance(found, Tensor):
        return found
    return torch.zeros(len(maps.prompts), len(maps.steps), max(map(len, maps.spans)))
