"""Boxes and masks of a layout, in fractions of the picture."""

from collections.abc import Callable, Mapping, Sequence

import torch

from attncontrol.attention.regions import Region, coverage, on_grid, require_region
from attncontrol.axes import CellMask, PixelMap
from attncontrol.errors import SettingError

Regions = Mapping[str, Region]
"""Word -> box, or mask [height width] of any size."""
Layouts = Regions | Mapping[str, Regions]
"""One layout for all prompts, or prompt -> its own."""


def require_layouts(layouts: Layouts) -> None:
    """Raises SettingError for a box that is empty or outside the picture, an empty mask, and for
    no box at all."""
    for layout in _by_prompt(layouts).values():
        _check(layout)


def words_of(layouts: Layouts) -> "list[str] | dict[str, list[str]]":
    """The words of the layout, or of each prompt."""
    by_prompt = {prompt: list(layout) for prompt, layout in _by_prompt(layouts).items()}
    return by_prompt.get(None) or {str(prompt): words for prompt, words in by_prompt.items()}


def masks_like(
    layouts: Layouts, maps: torch.Tensor, prompts: Sequence[str | None]
) -> list[list[CellMask]]:
    """For every image, with its prompt, the mask of each word on the grid of ``maps`` [batch height
    width ...], on their device."""
    return _like(on_grid, layouts, maps, prompts)


def coverages_like(
    layouts: Layouts, maps: torch.Tensor, prompts: Sequence[str | None]
) -> list[list[PixelMap]]:
    """As ``masks_like``, but what share of every cell is covered, divided by the largest, in the
    precision of ``maps``."""
    return [
        [(share / share.max()).to(maps) for share in of_image]
        for of_image in _like(coverage, layouts, maps, prompts)
    ]


def middles_like(
    layouts: Layouts, maps: torch.Tensor, prompts: Sequence[str | None]
) -> list[list[torch.Tensor]]:
    """As ``masks_like``, but the middle (x, y) of every box, or of the cells of every mask, in the
    precision of ``maps``."""
    return [
        [middle.to(maps) for middle in of_image]
        for of_image in _like(_middle, layouts, maps, prompts)
    ]


def sizes_like(
    layouts: Layouts, maps: torch.Tensor, prompts: Sequence[str | None]
) -> list[list[torch.Tensor]]:
    """As ``masks_like``, but what share of the picture every box or mask covers, in the precision
    of ``maps``."""
    return [
        [share.mean().to(maps) for share in of_image]
        for of_image in _like(coverage, layouts, maps, prompts)
    ]


def _middle(place: Region, *_: int) -> torch.Tensor:
    if isinstance(place, torch.Tensor):
        size = place.new_tensor(place.shape, dtype=torch.float64)
        return ((place.nonzero() + 0.5) / size).mean(0).flip(0)
    left, top, right, bottom = place
    return torch.tensor([(left + right) / 2, (top + bottom) / 2], dtype=torch.float64)


def _like(
    on: Callable[[Region, int, int], torch.Tensor],
    layouts: Layouts,
    maps: torch.Tensor,
    prompts: Sequence[str | None],
) -> list[list[torch.Tensor]]:
    found = {
        prompt: [on(place, *maps.shape[1:3]).to(maps.device) for place in layout.values()]
        for prompt, layout in _by_prompt(layouts).items()
    }
    return [found.get(None) or found[prompt] for prompt in (prompts or [None] * len(maps))]


def _by_prompt(layouts: Layouts) -> dict[str | None, Regions]:
    """None stands for all prompts."""
    if layouts and all(isinstance(layout, Mapping) for layout in layouts.values()):
        return dict(layouts)  # type: ignore[arg-type]  # as every value was looked at
    return {None: layouts}  # type: ignore[dict-item]  # nor is it prompts with layouts


def _check(layout: Regions) -> None:
    if not layout:
        raise SettingError(
            "a layout maps words to boxes, such as {'cat': (0.0, 0.2, 0.5, 0.9)}; it is empty"
        )
    for word, place in layout.items():
        require_region(place, repr(word))
