"""What an image has looked at so far, and the masks of subjects that follow from it."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.moment import Moment, steps_in
from attncontrol.attention.regions import Region
from attncontrol.edits._clusters import refined
from attncontrol.edits._places import inside, positions
from attncontrol.edits.merge import keys_of
from attncontrol.errors import SettingError
from attncontrol.prompts.words import Word

FIRST, EVERY = 0.3, 0.1  # of the steps: 15 and 5 of 50


def add_maps(
    found: dict[str, Any], call: AttentionCall, now: Moment, row: int, words: Iterable[Word]
) -> None:
    """Adds to the sums "cells" [cell cell] and "words" [word cell] what a row looks at, mean over
    heads and the tokens of a word. Raises SettingError for maps of several grids."""
    grid, (picture, _) = now.layout.grid, positions(call, now, row)
    if found.setdefault("grid", grid) != grid:
        raise SettingError(
            f"masks are refined by maps of one grid, not of {found['grid']} and {grid}: choose "
            "refine=Where(layers=...), such as ('up_blocks.1',) of Stable Diffusion"
        )
    part = call.rows(slice(row, row + 1)).of_queries(picture)
    seen, maps = part.probabilities()[0].detach().mean(0), {}
    if call.site.kind != "cross":
        maps["cells"] = seen[:, picture]
    if call.site.kind != "self":
        of_words = [seen[:, keys_of(word, row, call, now)].mean(1) for word in words]
        maps["words"] = torch.stack(of_words)
    for name, map_ in maps.items():
        found[name] = found[name] + map_ if name in found else map_


def cells_of(
    found: dict[str, Any], now: Moment, regions: Mapping[Word, Region], boxes: Tensor
) -> Tensor:
    """Which cells lie in each region [region cell]: ``boxes``, those of ``regions``, before the
    share FIRST of the run, then clusters, which are found again at every share EVERY."""
    first, every = steps_in(FIRST, now.step.total), max(steps_in(EVERY, now.step.total), 1)
    number = (now.step.index - first) // every
    looked = "cells" in found and "words" in found
    if looked and number >= 0 and found.get("number") != number:
        coarse = inside(regions.values(), Layout(found["grid"]), boxes.device)
        before, centres = found.get("masks", coarse), found.get("centres")
        found["masks"], found["centres"] = refined(
            found["cells"], found["words"], before, coarse, centres
        )
        found["number"] = number
    if "masks" not in found:
        return boxes
    masks = found["masks"].reshape(1, -1, *found["grid"]).float()
    return F.interpolate(masks, now.layout.grid, mode="nearest-exact")[0].flatten(1) > 0
