"""What ``record`` sees of sources: which cells of edited images are theirs, and which attention."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.attention.taken import noted
from attncontrol.maps.recording import BranchText
from attncontrol.maps.taken import TakenOver


@dataclass(eq=False)
class Taking:
    """``cells`` [image height width] by step, ``words`` [image token] by site and step.
    ``source_of`` gives the source of an image, itself if it has none."""

    source_of: Callable[[int], int]
    sources: tuple[int, ...] = ()
    cells: dict[int, Tensor] = field(default_factory=dict)
    words: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def ended(self, latents: Tensor, now: Moment) -> None:
        """The latents after a step, when all edits have changed them."""
        of, grid = [self.source_of(image) for image in now.images], now.layout.grid
        self.sources = tuple(s if of[s] == s else i for i, s in enumerate(of))
        if self._takes and math.prod(grid[:-2]) == 1 and len(latents) == len(of):
            same = latents == latents[list(self.sources)]
            cells = same.all(2 if latents.ndim == 3 else 1).reshape(len(of), *grid[-2:])
            cells[[image == s for image, s in enumerate(self.sources)]] = False
            self.cells[now.step.index] = cells.to(torch.uint8).cpu()

    def listen(self, call: AttentionCall, now: Moment, text: BranchText | None) -> None:
        """What edits say of a call, for the words of every image of the text."""
        found = [noted(call, now, image) for image in now.images]
        if text is None or all(shares is None for shares in found):
            return
        of_call = torch.zeros(len(found), max(map(len, text.spans)))
        for row, shares in enumerate(found):
            for place, span in enumerate(text.spans[now.images[row]]):
                if shares is not None and span.positions:
                    of_call[row, place] = shares[list(span.positions)].mean()
        self.words.setdefault(call.site.name, {})[now.step.index] = of_call

    def of(self, steps: Sequence[int]) -> TakenOver | None:
        """None if nothing has a source."""
        if not self._takes:
            return None
        cells = [self.cells.get(step) for step in steps]
        known = [each for each in cells if each is not None]
        whole = torch.stack(known, 1) if len(known) == len(cells) else None
        words = {name: _over(steps, of) for name, of in self.words.items() if of.keys() & {*steps}}
        return TakenOver(self.sources, whole, words)

    @property
    def last(self) -> Tensor | None:
        """Cells [image height width] of the last step after which any were a source's."""
        return next(
            (each for _, each in sorted(self.cells.items(), reverse=True) if each.any()), None
        )

    @property
    def _takes(self) -> bool:
        return any(of != image for image, of in enumerate(self.sources))


def _over(steps: Sequence[int], of: dict[int, Tensor]) -> Tensor:
    """[image step token], zeros for steps in which nothing was said."""
    nothing = torch.zeros_like(next(iter(of.values())))
    return torch.stack([of.get(step, nothing) for step in steps], 1)
