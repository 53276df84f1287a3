"""Pictures, and records of attention made by hand."""

import numpy as np
import torch

from attncontrol.attention.sites import Site
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.prompts.tokens import Span, Token

PROMPT = "a red cat and a frog"
DOWN, MID, UP = (
    f"{block}.attentions.0.transformer_blocks.0.attn2"
    for block in ("down_blocks.0", "mid_block", "up_blocks.1")
)
GRIDS = ((2, 3), (4, 6), (4, 6), (3, 2))


def pictures(count=2, height=64, width=96):
    return list(
        np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    )


def maps_of(*, batch=2, steps=2, heads=3, grids=GRIDS, tokens=5, seed=0):
    """Three tokens of the prompt "red cat", one of start and one of end."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, 2, steps, heads, *grid, tokens) for grid in grids]
    layers = {
        f"l{i}": torch.rand(shape, generator=generator, dtype=torch.float64)
        for i, shape in enumerate(shapes)
    }
    ends = [(0, 0), (0, 3), (4, 6), (6, 7), (0, 0)]
    row = tuple(Token(i, i, f"t{i}", *end, special=end == (0, 0)) for i, end in enumerate(ends))
    return AttentionMaps(
        layers=layers,
        prompts=("red cat",) * batch,
        tokens=(row,) * batch,
        spans=(tuple(Span(token.text, (token.index,)) for token in row),) * batch,
        branches=("cond", "uncond"),
        steps=tuple(range(steps)),
        timesteps=tuple(map(float, range(steps))),
        sigmas=(1.0,) * steps,
    )


def tokens_of(prompt):
    """One token per word, between a first and two last special ones."""
    found, at = [Token(0, 0, "<first>", 0, 0, True)], 0
    for number, word in enumerate(prompt.split(" "), 1):
        found.append(Token(number, number, word, at, at + len(word), False))
        at += len(word) + 1
    return (
        *found,
        *(Token(len(found) + k, 0, "<last>", len(prompt), len(prompt), True) for k in range(2)),
    )


def made(layers, words=("cat", "frog", "red"), *, prompt=PROMPT, branches=("cond",), **about):
    """A record of ``layers`` [image branch step head (frame) height width word]."""
    shape = next(iter(layers.values())).shape
    tokens = tokens_of(prompt)
    spans = tuple(
        Span(word, tuple(t.index for t in tokens if t.text and t.text in word.split(" ")))
        for word in words
    )
    return AttentionMaps(
        layers=layers,
        sites={
            name: Site(name, "cross", of_layer.shape[3], 1) for name, of_layer in layers.items()
        },
        prompts=(prompt,) * shape[0],
        tokens=(tokens,) * shape[0],
        spans=(spans,) * shape[0],
        branches=branches,
        steps=tuple(range(shape[2])),
        timesteps=tuple(float(1000 - k) for k in range(shape[2])),
        sigmas=(float("inf"),) + (1.0,) * (shape[2] - 1),
        about=about,
    )
