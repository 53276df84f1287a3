"""A loss of your own: words side by side, in the order in which they are given.

From the command line, without a line of Python around it:

    cd samples && attncontrol generate "a cat and a frog" --method own_loss:LeftOf --compare

    python samples/own_loss.py            writes own_loss.png
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from attncontrol import Objective, StepMaps


@dataclass(frozen=True)
class LeftOf(Objective):
    """Every word lies at least ``gap`` of the picture's width left of the next one.

    L = sum over neighbours of max(0, x_k - x_k+1 + gap)      x: centre of mass of a map, 0 .. 1
    """

    words: Sequence[str] | None = None  # None: the nouns of the prompt
    gap: float = 0.3

    def __call__(self, maps: StepMaps) -> torch.Tensor:
        losses = []
        for image, subjects in zip(maps.mean(), maps.subjects, strict=True):
            places = [_middle(image[..., list(subject.positions)].sum(-1)) for subject in subjects]
            overlaps = [(a - b + self.gap).clamp(min=0) for a, b in pairwise(places)]
            losses.append(sum(overlaps, image.sum() * 0))
        return torch.stack(losses)


def _middle(word: torch.Tensor) -> torch.Tensor:
    """The centre of mass of a map [height, width], from 0 at the left to 1 at the right."""
    columns = torch.linspace(0, 1, word.shape[1], device=word.device, dtype=word.dtype)
    return (word.sum(0) * columns).sum() / word.sum()


def main() -> None:
    from diffusers import DiffusionPipeline

    from attncontrol import sprites, steer
    from attncontrol.losses import AttendAndExcite
    from attncontrol.maps.draw import grid

    pipe, seeds = DiffusionPipeline.from_pretrained(sprites.path("sd")), range(4)
    rows = {}
    for name, words in (("cat left", ["cat", "frog"]), ("frog left", ["frog", "cat"])):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        # both subjects are there, and in this order
        with steer(pipe, AttendAndExcite(words) + 5.0 * LeftOf(words)):
            prompts = ["a cat and a frog"] * len(seeds)
            rows[name] = pipe(prompts, generator=generators, **sprites.call("sd")).images
    grid(rows, [f"seed {seed}" for seed in seeds], title="a cat and a frog").save("own_loss.png")


if __name__ == "__main__":
    main()
