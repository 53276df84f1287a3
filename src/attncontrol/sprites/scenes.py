"""The sprites world: captioned scenes of coloured sprites whose masks are known exactly.

A scene is a canvas of 128 x 128 px with one to three sprites on a plain or lightly textured
background. Nouns and colours are those of the Attend-and-Excite benchmark (arXiv 2301.13826). The
sprites come from ``sprites.png``, an atlas of 24 glyphs of Noto Color Emoji (SIL Open Font License
1.1); a sofa stands for the bench. A sprite is shown in its natural colours unless a colour is
named; a named colour replaces hue and saturation and keeps the luminance pattern.

Planted failures. With probability ``P_MISSING`` a caption of two or three objects is shown with one
of them missing, and with probability ``P_SWAP`` the colours of two of its objects are exchanged. A
model trained on these pairs therefore neglects subjects and misbinds colours at a known rate: the
failures that test-time guidance repairs.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

SIZE = 128

CELL = 80
ANIMALS = [
    "cat",
    "dog",
    "bird",
    "bear",
    "lion",
    "horse",
    "elephant",
    "monkey",
    "frog",
    "turtle",
    "rabbit",
    "mouse",
]
OBJECTS = [
    "backpack",
    "glasses",
    "crown",
    "suitcase",
    "chair",
    "balloon",
    "bow",
    "car",
    "bowl",
    "bench",
    "clock",
    "apple",
]
NOUNS = ANIMALS + OBJECTS
COLORS = {
    "red": (214, 28, 36),
    "orange": (247, 132, 16),
    "yellow": (247, 214, 36),
    "green": (40, 158, 62),
    "blue": (36, 88, 222),
    "pink": (250, 138, 188),
    "purple": (132, 46, 172),
    "brown": (118, 70, 36),
    "gray": (128, 128, 132),
    "black": (34, 34, 38),
    "white": (240, 240, 244),
}
P_MISSING = 0.40
P_SWAP = 0.20
_BACKGROUNDS = np.array(
    [
        (196, 208, 186),
        (222, 206, 176),
        (184, 206, 222),
        (206, 196, 220),
        (180, 190, 196),
        (224, 196, 196),
    ]
)
_SIDES = {1: (66, 104), 2: (58, 74), 3: (48, 60)}

Characters = tuple[int, int]


@dataclass(frozen=True)
class Thing:
    """A noun with the colour that its caption names, or None for natural colours."""

    noun: str
    color: str | None = None


@dataclass(frozen=True)
class Scene:
    """What the caption says and what the picture shows.

    ``named`` and ``shown`` are parallel; ``shown[i]`` is None where object i is missing. ``boxes``
    are (left, top, width, height) in pixels. ``noun_spans`` and ``color_spans`` are character
    ranges of the caption.
    """

    caption: str
    named: tuple[Thing, ...]
    shown: tuple[Thing | None, ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    noun_spans: tuple[Characters, ...]
    color_spans: tuple[Characters | None, ...]
    background: tuple[int, int]


@cache
def _atlas() -> np.ndarray:
    with files("attncontrol.sprites").joinpath("sprites.png").open("rb") as file:
        image = Image.open(file).convert("RGBA")
    return np.asarray(image).reshape(2, CELL, 12, CELL, 4).swapaxes(1, 2).reshape(24, CELL, CELL, 4)


@cache
def sprite(thing: Thing) -> Image.Image:
    """RGBA picture of a thing, cropped to its ink."""
    cell = _atlas()[NOUNS.index(thing.noun)].astype(np.float64)
    rgb, alpha = cell[..., :3], cell[..., 3:]
    if thing.color is not None:
        luminance = rgb @ (0.299, 0.587, 0.114)
        ink = luminance[alpha[..., 0] > 128]
        low, middle, high = np.percentile(ink, (2, 50, 98))
        shade = np.interp(luminance, (low, middle, high), (0.35, 1.0, 1.45))[..., None]
        color = np.array(COLORS[thing.color], dtype=np.float64)
        darker, lighter = (
            color * np.minimum(shade, 1),
            color + (255 - color) * np.maximum(shade - 1, 0),
        )
        rgb = np.where(shade < 1, np.maximum(darker, color * 0.3), lighter)
    picture = Image.fromarray(np.concatenate([rgb, alpha], -1).round().astype(np.uint8), "RGBA")
    return picture.crop(picture.getchannel("A").getbbox())


def caption(
    things: tuple[Thing, ...], joiner: str = "and"
) -> tuple[str, tuple[Characters, ...], tuple[Characters | None, ...]]:
    """Caption of the things in the benchmark's grammar, with the character spans of nouns and
    colours."""
    text, nouns, colors = "", [], []
    for i, thing in enumerate(things):
        if i:
            text += f" {joiner} " if i == len(things) - 1 else ", "
        text += "a "
        colors.append((len(text), len(text) + len(thing.color)) if thing.color else None)
        text += f"{thing.color} " if thing.color else ""
        nouns.append((len(text), len(text) + len(thing.noun)))
        text += thing.noun
    return text, tuple(nouns), tuple(colors)


def place(count: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Squares (left, top, side) that overlap by at most a tenth of the smaller one."""
    while True:
        sides = rng.integers(*_SIDES[count], size=count, endpoint=True)
        spots = [
            (int(rng.integers(0, SIZE - s + 1)), int(rng.integers(0, SIZE - s + 1)), int(s))
            for s in sides
        ]
        if all(overlap(a, b) <= 0.1 for i, a in enumerate(spots) for b in spots[:i]):
            return spots


def boxed(thing: Thing, spot: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Of a thing in the middle of a square."""
    left, top, side = spot
    width, height = (round(length * (side / CELL)) for length in sprite(thing).size)
    return left + (side - width) // 2, top + (side - height) // 2, width, height


def overlap(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """Of two squares, as a share of the smaller one."""
    width, height = (min(a[k] + a[2], b[k] + b[2]) - max(a[k], b[k]) for k in (0, 1))
    return max(width, 0) * max(height, 0) / min(a[2], b[2]) ** 2


def compose(
    named: tuple[Thing, ...],
    rng: np.random.Generator,
    *,
    joiner: str = "and",
    failures: bool = False,
) -> Scene:
    """Scene of the named things at random places; with ``failures`` one may be missing or two may
    swap colours."""
    shown: list[Thing | None] = list(named)
    if failures and len(named) > 1:
        fate = rng.random()
        if fate < P_MISSING:
            shown[int(rng.integers(len(named)))] = None
        elif fate < P_MISSING + P_SWAP:
            i, j = rng.choice(len(named), 2, replace=False)
            shown[i], shown[j] = (
                Thing(named[i].noun, named[j].color),
                Thing(named[j].noun, named[i].color),
            )
    boxes = [boxed(thing, spot) for thing, spot in zip(named, place(len(named), rng), strict=True)]
    text, nouns, colors = caption(named, joiner)
    ground = int(rng.integers(len(_BACKGROUNDS))), int(rng.integers(4))
    return Scene(text, named, tuple(shown), tuple(boxes), nouns, colors, ground)


def sample_thing(noun: str, rng: np.random.Generator) -> Thing:
    """The noun, of animals a quarter and of objects 65 % in a random colour."""
    colored = rng.random() < (0.25 if noun in ANIMALS else 0.65)
    return Thing(str(noun), str(rng.choice(list(COLORS))) if colored else None)


def sample_joiner(count: int, rng: np.random.Generator) -> str:
    return "with" if count == 2 and rng.random() < 0.25 else "and"


def sample(rng: np.random.Generator, *, failures: bool = True) -> Scene:
    """Random scene of the training distribution: 1, 2 or 3 objects with probability .35, .5,
    .15."""
    count = int(rng.choice(3, p=(0.35, 0.50, 0.15))) + 1
    named = tuple(sample_thing(noun, rng) for noun in rng.choice(NOUNS, count, replace=False))
    return compose(named, rng, joiner=sample_joiner(count, rng), failures=failures)


def _ground(background: tuple[int, int]) -> np.ndarray:
    tone, texture = background
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    ripple = (0 * x, 14 * (y - 0.5), 14 * (x - 0.5), 5 * np.sin(12 * np.pi * (x + y)))[texture]
    return _BACKGROUNDS[tone] + ripple[..., None]


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Picture (SIZE, SIZE, 3) uint8 and visible masks (objects, SIZE, SIZE) bool; the mask of a
    missing object is empty."""
    canvas = Image.fromarray(_ground(scene.background).round().astype(np.uint8), "RGB")
    masks = np.zeros((len(scene.named), SIZE, SIZE), dtype=bool)
    for i, (thing, (left, top, width, height)) in enumerate(
        zip(scene.shown, scene.boxes, strict=True)
    ):
        if thing is None:
            continue
        picture = sprite(thing).resize((width, height), Image.Resampling.LANCZOS)
        canvas.paste(picture, (left, top), picture)
        ink = np.zeros((SIZE, SIZE), dtype=bool)
        ink[top : top + height, left : left + width] = np.asarray(picture.getchannel("A")) > 127
        masks &= ~ink
        masks[i] = ink
    return np.asarray(canvas), masks
