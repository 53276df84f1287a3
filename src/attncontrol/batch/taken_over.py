"""Which cells of an edited picture are those of its source."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attncontrol.attention.moment import Moment
from attncontrol.running.session import Hooks, attach


@dataclass(eq=False)
class TakenOver:
    """``cells`` [height width]: where the latents of image 1 are those of image 0 after the last
    step in which any are; None if there is no such step, as if attention alone is taken over."""

    cells: Tensor | None = None

    def see(self, latents: Tensor, now: Moment) -> Tensor:
        packed = latents.ndim == 3  # [image cell channel], else [image channel *grid]
        same = (latents[0] == latents[1]).all(1 if packed else 0)
        if same.any():
            frames = same.reshape(-1, *now.layout.grid[-2:])
            self.cells = frames.all(0).cpu()
        return latents


@contextmanager
def taken_over(pipe: Any) -> Iterator[TakenOver]:
    """Inside ``edit``, of calls with a source and one picture that is edited from it."""
    run, seen = attach(pipe), TakenOver()
    sites = dict(list(run.sites.items())[:1])  # which tell the grid of packed latents
    with run.hooked(Hooks(sites=sites, stepped=seen.see)):
        yield seen
