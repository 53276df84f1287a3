"""A folder of pairs in the layout of PIE-Bench (Ju et al. 2023, arXiv 2310.01506).

    mapping_file.json     key -> image_path, original_prompt, editing_prompt, editing_type_id, mask
    annotation_images/    the pictures, at their image_path

Brackets in prompts mark words that change; they are no part of the text. A mask is a list [start,
length, start, length ...] of runs of the pixels of 512 x 512, row after row, that may change. As in
PIE-Bench's own evaluator the outermost pixels count as such, too.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attncontrol.bench.photos.pairs import Pair
from attncontrol.errors import ResultsError
from attncontrol.verbs.photo import fitted

MAPPING, PICTURES = "mapping_file.json", "annotation_images"
SIDE = 512  # pixels of a mask
TYPES = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change color",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
"""Of edits, by the ids of the layout; other ids stand for themselves."""
_NEEDED = {"image_path": str, "original_prompt": str, "editing_prompt": str, "mask": list}


def read_folder(folder: Path, count: int | None = None) -> list[dict[str, Any]]:
    """The entries with their numbers, of every type at most ``count``. Raises ResultsError for a
    folder that is none of this layout, naming the entry."""
    file = folder / MAPPING
    if not file.is_file():
        raise ResultsError(
            f"{folder} has no {MAPPING}; the layout is that of PIE-Bench: {MAPPING} and {PICTURES}/"
        )
    try:
        mapping = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{file} is no JSON: {error}") from error
    if not isinstance(mapping, dict) or not mapping:
        raise ResultsError(f"{file} has to map the keys of pictures to their entries")
    chosen, taken = [], defaultdict[str, int](int)
    for number, (key, entry) in enumerate(mapping.items()):
        _require(folder, key, entry)
        kind = kind_of(entry)
        taken[kind] += 1
        if count is None or taken[kind] <= count:
            chosen.append({**entry, "number": number})
    return chosen


def _require(folder: Path, key: str, entry: Any) -> None:
    """Raises ResultsError for an entry that lacks something."""
    at = f"{folder / MAPPING}, {key!r}"
    if not isinstance(entry, dict):
        raise ResultsError(f"{at}: an entry is an object with {', '.join(_NEEDED)}")
    for name, kind in _NEEDED.items():
        if not isinstance(entry.get(name), kind):
            raise ResultsError(
                f"{at}: {name} is {entry.get(name)!r}, and has to be a {kind.__name__}"
            )
    runs = entry["mask"]
    whole = all(isinstance(each, int) and each >= 0 for each in runs)
    if len(runs) % 2 or not whole or any(start >= SIDE**2 for start in runs[::2]):
        raise ResultsError(
            f"{at}: mask has to be pairs of a start below {SIDE**2} and a length, in pixels"
        )
    picture = folder / PICTURES / entry["image_path"]
    if not picture.is_file():
        raise ResultsError(f"{at}: {picture} does not exist")


def pairs_of(
    pipe: Any, folder: Path, entries: Sequence[Mapping[str, Any]], size: tuple[int, int] | None
) -> Iterator[Pair]:
    """Pictures as the model is shown them: of ``size`` (height, width), else of their own, at most
    of that of the model. Raises ResultsError for a file that is no picture."""
    for entry in entries:
        file = folder / PICTURES / entry["image_path"]
        try:
            with Image.open(file) as opened:
                shape, pixels = opened.size, fitted(pipe, opened, size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ResultsError(f"{file} cannot be read: {error}") from error
        picture = Image.fromarray(pixels)
        changed = mask_of(entry["mask"])
        if changed.shape != picture.size[::-1]:
            whole = Image.fromarray(changed).resize(shape, Image.Resampling.NEAREST)
            changed = fitted(pipe, np.asarray(whole.convert("L")), picture.size[::-1])[..., 0] > 0
        before, after = (_text(entry[name]) for name in ("original_prompt", "editing_prompt"))
        kind, number = kind_of(entry), entry["number"]
        yield Pair(kind, number, before, after, picture, picture, changed)


def mask_of(runs: Sequence[int]) -> np.ndarray:
    """[height width] bool of 512 x 512."""
    flat = np.zeros(SIDE**2, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.reshape(SIDE, SIDE)
    mask[[0, -1]] = mask[:, [0, -1]] = True
    return mask


def kind_of(entry: Mapping[str, Any]) -> str:
    """The type of the edit, with its name where it has one."""
    name = str(entry.get("editing_type_id", ""))
    return f"{name} {TYPES[name]}" if name in TYPES else name or "no type"


def _text(prompt: str) -> str:
    return prompt.replace("[", "").replace("]", "")
