"""Scenes as arrays, on any number of processes: pictures, and what the tokens of captions mean."""

from dataclasses import dataclass, replace

import numpy as np

from attncontrol.sprites.scenes import (
    NOUNS,
    SIZE,
    Scene,
    caption,
    render,
    sample,
    sample_joiner,
    sample_thing,
)
from attncontrol.sprites.training.text import MAX_TOKENS, make_tokenizer

CELL = 8  # pixels of a cell of coverage


def word_objects(scene: Scene, offsets: list[tuple[int, int]]) -> list[int]:
    """For every token the object that its word describes in the picture, or -1 (no such word, or
    its object is not shown)."""
    owners = [-1] * len(offsets)
    for i, (named, shown) in enumerate(zip(scene.named, scene.shown, strict=True)):
        spans = [] if shown is None else [scene.noun_spans[i]]
        colored = scene.color_spans[i]
        if shown is not None and colored is not None and shown.color == named.color:
            spans.append(colored)
        for k, (start, end) in enumerate(offsets):
            if any(start < stop and first < end for first, stop in spans):
                owners[k] = i
    return owners


def recaptioned(scene: Scene, order: list[int], rng: np.random.Generator) -> Scene:
    """The same picture under another caption: its objects in ``order``, a new joiner, and another
    noun for one that is missing."""
    named = {thing.noun for thing in scene.named}
    others = [noun for noun in NOUNS if noun not in named]
    things = tuple(
        sample_thing(str(rng.choice(others)), rng) if scene.shown[i] is None else scene.named[i]
        for i in order
    )
    text, nouns, colors = caption(things, sample_joiner(len(things), rng))
    return replace(
        scene,
        caption=text,
        named=things,
        shown=tuple(scene.shown[i] for i in order),
        boxes=tuple(scene.boxes[i] for i in order),
        noun_spans=nouns,
        color_spans=colors,
    )


def tokens_and_owners(
    scenes: list[Scene], orders: list[list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [caption 32], and the object of each token as numbered before the objects were put
    in ``orders``."""
    encoded = make_tokenizer()(
        [scene.caption for scene in scenes],
        padding="max_length",
        max_length=MAX_TOKENS,
        return_offsets_mapping=True,
    )
    owners = [
        [order[i] if i >= 0 else -1 for i in word_objects(scene, offsets)]
        for scene, order, offsets in zip(scenes, orders, encoded.offset_mapping, strict=True)
    ]
    return np.array(encoded.input_ids, np.int16), np.array(owners, np.int8)


@dataclass(frozen=True)
class Piece:
    """Scenes ``start`` to ``stop`` of a seed, each with ``captions`` drawn anew; 0: its own one."""

    seed: int
    start: int
    stop: int
    captions: int


def drawn(piece: Piece) -> dict[str, np.ndarray]:
    """Pictures [scene 128 128 3], ids and owners [scene caption 32], coverage [scene 3 16 16]."""
    numbers = range(piece.start, piece.stop)
    scenes = [sample(np.random.default_rng((piece.seed, 2, i))) for i in numbers]
    pictures, masks = zip(*(render(scene) for scene in scenes), strict=True)
    coverage = np.zeros((len(scenes), 3, SIZE // CELL, SIZE // CELL), np.float16)
    for i, mask in enumerate(masks):
        cells = mask.reshape(len(mask), SIZE // CELL, CELL, SIZE // CELL, CELL)
        coverage[i, : len(mask)] = cells.mean((2, 4))
    said, orders = [], []
    for i, scene in zip(numbers, scenes, strict=True):
        rng = np.random.default_rng((piece.seed, 5, i))
        own = list(range(len(scene.named)))
        mixed = [rng.permutation(own).tolist() for _ in range(piece.captions)]
        said += [recaptioned(scene, order, rng) for order in mixed] or [scene]
        orders += mixed or [own]
    ids, owners = (
        each.reshape(len(scenes), -1, MAX_TOKENS) for each in tokens_and_owners(said, orders)
    )
    return {"pictures": np.stack(pictures), "ids": ids, "owners": owners, "coverage": coverage}
