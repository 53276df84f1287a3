"""The ground-truth scorer: which nouns of the sprites world a picture shows, where, and in which
colour.

A fully convolutional network reads the picture alone and labels every cell of 4 x 4 px with a noun,
or background, and a colour. ``attncontrol.sprites.training.train_scorer`` makes its weights.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load
from scipy import ndimage
from torch import Tensor, nn

from attncontrol.errors import SettingError
from attncontrol.sprites.scenes import COLORS, NOUNS, Thing
from attncontrol.sprites.training.fit import to_tensor

STRIDE = 4  # pixels per cell
WEIGHTS = files("attncontrol.sprites").joinpath("weights", "scorer.safetensors")
# pixels, 40 % of the smallest sprite (600); fewer than one ghost in 1000 true scenes is larger
MIN_AREA = 240
Pictures = Sequence[Image.Image] | Sequence[np.ndarray] | np.ndarray
_COLOR_NAMES = tuple(COLORS)
_BATCH = 32


@dataclass(frozen=True)
class Detection:
    """A noun that a picture shows.

    ``box`` is (left, top, width, height) in pixels, ``mask`` (height, width) bool of the picture,
    ``confidence`` the mean probability of the noun inside the mask. ``color`` is the nearest of
    COLORS, also for a sprite in natural colours.
    """

    noun: str
    color: str
    box: tuple[int, int, int, int]
    mask: np.ndarray = field(repr=False, compare=False)
    confidence: float


class _Block(nn.Module):
    """Residual block x + conv(act(conv(act(x)))), act = SiLU of GroupNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [
            (nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(2)
        ]
        self.body = nn.Sequential(*layers[0], *layers[1])

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.body(x)
        return x + change


class Scorer(nn.Module):
    """U-shaped network with levels at strides 4, 8 and 16."""

    def __init__(self, widths: tuple[int, int, int] = (48, 64, 96)) -> None:
        super().__init__()
        first, *_, last = widths
        pairs = list(pairwise(widths))
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1), nn.GroupNorm(8, 24), nn.SiLU(), nn.Conv2d(24, first, 3, 2, 1)
        )
        self.encoders = nn.ModuleList(_Block(w) for w in widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairs)
        self.middle = _Block(last)
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.decoders = nn.ModuleList(_Block(w) for w in widths[:-1])
        self.head = nn.Sequential(
            nn.GroupNorm(8, first), nn.SiLU(), nn.Conv2d(first, 1 + len(NOUNS) + len(COLORS), 1)
        )

    def encode(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, 3, height, width) in [-1, 1] -> the middle (batch, 96, height / 16, width / 16),
        and what goes around it."""
        x, skips = self.stem(pictures), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        return self.middle(x), skips

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, height, width) in [-1, 1] -> logits (batch, 25, h, w) of background and NOUNS,
        and (batch, 11, h, w)."""
        x, skips = self.encode(pictures)
        for skip, up, decoder in reversed(list(zip(skips, self.ups, self.decoders, strict=True))):
            x = decoder(skip + F.interpolate(up(x), size=skip.shape[-2:]))
        nouns, colors = self.head(x).split((1 + len(NOUNS), len(COLORS)), 1)
        return nouns, colors


@cache
def _network() -> Scorer:
    network = Scorer()
    network.load_state_dict({k: v.float() for k, v in load(WEIGHTS.read_bytes()).items()})
    return network.eval()


def _largest_group(cells: np.ndarray) -> np.ndarray:
    """Mask of the largest group of True pixels that touch by an edge or a corner."""
    groups: np.ndarray = ndimage.label(cells, np.ones((3, 3)))[0]
    largest: np.ndarray = groups == 1 + np.bincount(groups.ravel())[1:].argmax()
    return largest


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start


def _detections(nouns: np.ndarray, colors: np.ndarray) -> tuple[Detection, ...]:
    """Findings from probabilities (24, height, width) of nouns and log-probabilities (11, height,
    width) of colours."""
    detections = []
    for noun, probability in zip(NOUNS, nouns, strict=True):
        likely = probability > 0.5
        if likely.sum() < MIN_AREA:
            continue
        mask = _largest_group(likely)
        if mask.sum() >= MIN_AREA:
            color = _COLOR_NAMES[colors[:, mask].mean(1).argmax()]
            detections.append(
                Detection(noun, color, _bounds(mask), mask, float(probability[mask].mean()))
            )
    return tuple(detections)


def _batches(pictures: Pictures) -> Iterator[Tensor]:
    arrays = [np.asarray(p.convert("RGB")) if isinstance(p, Image.Image) else p for p in pictures]
    if len({a.shape for a in arrays}) > 1 or any(
        side % 8 for a in arrays[:1] for side in a.shape[:2]
    ):
        raise SettingError("pictures must have one size, with sides that are multiples of 8")
    for start in range(0, len(arrays), _BATCH):
        yield to_tensor(np.stack(arrays[start : start + _BATCH])).contiguous(
            memory_format=torch.channels_last
        )


@torch.inference_mode()
def features(pictures: Pictures) -> np.ndarray:
    """Features [picture 96] float32 of pictures as ``find`` takes them: the middle of the network,
    mean over its cells.

    The middle sees most of a sprite at once; the last features, from which cells are labelled, see
    little more than colour edges.
    """
    vectors = [_network().encode(batch)[0].mean((2, 3)).numpy() for batch in _batches(pictures)]
    return np.concatenate(vectors) if vectors else np.zeros((0, 96), np.float32)


@torch.inference_mode()
def detect(pictures: Pictures) -> list[tuple[Detection, ...]]:
    """The detections of each picture, at most one per noun, in the order of NOUNS.

    ``pictures`` are PIL images or uint8 arrays (height, width, 3), all of one size whose sides are
    multiples of 8. A noun is present where its probability, interpolated to pixels, exceeds 1/2 on
    a connected group of MIN_AREA pixels.
    """
    detections = []
    for batch in _batches(pictures):
        for nouns, colors in zip(*_network()(batch), strict=True):
            cells = torch.cat((nouns.softmax(0)[1:], colors.log_softmax(0)))
            pixels = F.interpolate(cells[None], size=batch.shape[-2:], mode="bilinear")[0].numpy()
            detections.append(_detections(*np.split(pixels, [len(NOUNS)])))
    return detections


def shows(detections: Iterable[Detection], thing: Thing) -> bool:
    """Whether the noun of the thing was found, in its colour where one is named."""
    return any(each.noun == thing.noun and thing.color in (None, each.color) for each in detections)
