"""Contact sheets: of every prompt its pictures, a row for every method, a column for every seed."""

import io
from collections.abc import Iterator, Sequence

from PIL import Image

from attncontrol.export.folder import encoded
from attncontrol.export.names import sheet_of
from attncontrol.jobs.item import Item
from attncontrol.jobs.made import Made
from attncontrol.jobs.places import Place
from attncontrol.maps.draw import grid

_MOST = 16  # seeds on one sheet
_SAME = {"prompt", "seed", "record", "words", "boxes"}


def write_sheets(place: Place, made: Sequence[Made]) -> None:
    """Raises WriteError."""
    prompts: dict[str, list[Made]] = {}
    for each in made:
        if each.file is not None:
            prompts.setdefault(each.item.prompt, []).append(each)
    for prompt, pictures in prompts.items():
        seeds = list(dict.fromkeys(each.item.seed for each in pictures))
        for start in range(0, len(seeds), _MOST):
            some = seeds[start : start + _MOST]
            sheet = _sheet(place, prompt, pictures, some)
            name = sheet_of(prompt, "sheet", some)
            place.put(f"sheets/{name}", encoded(sheet, ".png", {"prompt": prompt, "seeds": some}))


def _sheet(
    place: Place, prompt: str, pictures: Sequence[Made], seeds: Sequence[int]
) -> Image.Image:
    rows: dict[str, dict[int, Image.Image]] = {}
    for label, each in _labelled(pictures):
        if each.item.seed in seeds:
            data = place.get(each.file or "") or b""
            with Image.open(io.BytesIO(data)) as picture:
                rows.setdefault(label, {})[each.item.seed] = picture.convert("RGB")
    some = next(iter(next(iter(rows.values())).values()))
    blank = Image.new("RGB", some.size, "white")
    shown = {label: [row.get(seed, blank) for seed in seeds] for label, row in rows.items()}
    return grid(shown, [f"seed {seed}" for seed in seeds], title=prompt)


def _labelled(pictures: Sequence[Made]) -> Iterator[tuple[str, Made]]:
    """With the method and what else tells the pictures of a prompt apart."""
    told = [_told(each.item) for each in pictures]
    names = list(dict.fromkeys(name for each in told for name in each))
    varied = [name for name in names if len({each.get(name, "") for each in told}) > 1]
    for each, values in zip(pictures, told, strict=True):
        rest = [f"{name} {values[name]}" for name in varied if name != "method" and name in values]
        yield " ".join([each.item.method, *rest]), each


def _told(item: Item) -> dict[str, str]:
    values = item.model_dump(mode="json", exclude_defaults=True, exclude=_SAME)
    return {name: str(value) for name, value in values.items()}
