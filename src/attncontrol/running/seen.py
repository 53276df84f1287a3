"""What one pass of the denoiser shows, frame by frame; a picture is one frame."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall, Layout


@dataclass(eq=False)
class Seen:
    """What one pass of the denoiser has shown of the sites of a view, frame by frame: ``layers``
    [batch heads frame height width token], ``pictures`` [batch frame height width key_height
    key_width], ``features`` [batch frame height width channel]."""

    layers: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """How many; all sites have the same."""
        return next(of.shape[2] for of in self.layers.values())


def in_frames(grid: tuple[int, ...]) -> tuple[int, ...]:
    """(frames, height, width) of a grid; a picture is one frame."""
    return (1, *grid)[-3:]


def among_cells(call: AttentionCall, layout: Layout) -> Tensor:
    """[batch frame height width key_height key_width] of one attention call: mean over heads, from
    every frame to itself."""
    mean = call.probabilities().mean(1)
    frames, *grid = in_frames(layout.grid)
    rows = zip(mean, _images(layout, len(mean)), strict=True)
    among = torch.stack([of_row[image][:, image] for of_row, image in rows])
    among = among.unflatten(2, (frames, -1)).unflatten(1, (frames, -1))
    among = among.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # batch frame cell key
    among = among / among.sum(3, keepdim=True)
    return among.unflatten(3, grid).unflatten(2, grid)


def of_cells(output: Tensor, layout: Layout) -> Tensor:
    """[batch frame height width channel] of what one attention call puts out, heads side by
    side."""
    rows = zip(output.transpose(1, 2).flatten(2), _images(layout, len(output)), strict=True)
    features = torch.stack([of_row[image] for of_row, image in rows])
    return features.unflatten(1, in_frames(layout.grid))


def _images(layout: Layout, rows: int) -> tuple[slice, ...]:
    """The positions of the picture, for every row of the batch."""
    image = layout.image
    return image if isinstance(image, tuple) else (image,) * rows
