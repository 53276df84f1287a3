"""What objectives see in one step, made by hand."""

import torch

from attncontrol.maps.step import StepMaps
from attncontrol.prompts.tokens import Token
from attncontrol.prompts.words import subjects

PROMPT = "a red cat and a frog"
TOKENS = tuple(Token(i, i, "", *span, special=span == (0, 0)) for i, span in enumerate(
    [(0, 0), (0, 1), (2, 5), (6, 9), (10, 13), (14, 15), (16, 20), (0, 0), (0, 0)]
))  # fmt: skip


def cells(maps):
    """Attention among the cells of the picture [batch height width height width] for ``maps``
    [batch heads height width token]."""
    count, height, width = maps.shape[0], *maps.shape[2:4]
    generator = torch.Generator().manual_seed(5)
    rows = (
        torch.randn(8, height * width, height * width, generator=generator, dtype=torch.float64)
        .mul(2)
        .softmax(-1)
    )
    return rows[:count].unflatten(2, (height, width)).unflatten(1, (height, width))


def step_maps(maps, words, previous=None, picture=None):
    """Of images that all show PROMPT."""
    count = len(maps)
    found = subjects(lambda _: TOKENS, [PROMPT] * count, words)
    return StepMaps(
        {"layer": maps},
        found,
        (TOKENS,) * count,
        ((slice(1, -1),),) * count,
        previous,
        {"self": cells(maps) if picture is None else picture},
        {"self": maps.movedim(1, 3).flatten(3)},
        (PROMPT,) * count,
    )
