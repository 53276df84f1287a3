"""HiDream-I1 (``HiDreamImageTransformer2DModel``): joint attention over [picture, T5, Llama,
Llama], in double and single blocks.

The last but one segment is Llama's last layer, carried from block to block; the last one a layer of
its own for every block. So each word is there three times. Pictures that are not square are filled
up to the largest number of patches.
"""

import math
from functools import partial
from typing import Any

from diffusers import HiDreamImageTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import has_transformer, joint_sites, one_call, patch_grid
from attncontrol.prompts.tokens import Token, tokenize


def _encoders(_: Any) -> tuple[Encoder, ...]:
    numbers = {"t5": 3, "llama": 4, "llama-layer": 4}
    return tuple(
        Encoder(name, f"text_encoder_{n}", partial(_read, name, n), f"prompt_{n}")
        for name, n in numbers.items()
    )


def _read(name: str, number: int, pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer = getattr(pipe, f"tokenizer_{number}")
    length = min(encoding["max_sequence_length"], tokenizer.model_max_length)
    return tokenize(tokenizer, prompt, length=length, encoder=name)


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    grid = patch_grid(transformer, arguments)
    picture = math.prod(grid) if grid[0] == grid[1] else transformer.max_seq
    text = (
        arguments["encoder_hidden_states_t5"].shape[1]
        + 2 * arguments["encoder_hidden_states_llama3"].shape[2]
    )
    return Layout(grid, slice(math.prod(grid)), slice(picture, picture + text))


FAMILY = Family(
    name="hidream",
    matches=has_transformer(HiDreamImageTransformer2DModel),
    sites=joint_sites,
    branches=one_call,
    encoders=_encoders,
    layout=_layout,
    steering="diffusers runs its experts without gradient",
    time="timesteps",
    batch_axis={"encoder_hidden_states_llama3": 1},
)
