"""HiDream-I1 (``HiDreamImageTransformer2DModel``): joint attention over [picture, T5, Llama,
Llama], in double and single blocks.

The last but one segment is Llama's last layer, carried from block to block; the last one a layer of
its own for every block. So each word is there three times. Pictures that are not square are filled
up to the largest number of patches.
"""

import math
from typing import Any

from diffusers import HiDreamImageTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.family import Arguments, Family
from attncontrol.families.parts import one_call, patch_grid, transformer_sites
from attncontrol.prompts.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, lambda *_: "joint", transformer.config.patch_size)


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokens: tuple[Token, ...] = ()
    for tokenizer, name in (
        (pipe.tokenizer_3, "t5"),
        (pipe.tokenizer_4, "llama"),
        (pipe.tokenizer_4, "llama-layer"),
    ):
        length = min(encoding["max_sequence_length"], tokenizer.model_max_length)
        tokens += tokenize(tokenizer, prompt, length=length, offset=len(tokens), encoder=name)
    return tokens


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
    matches=lambda pipe: isinstance(
        getattr(pipe, "transformer", None), HiDreamImageTransformer2DModel
    ),
    denoiser=lambda pipe: pipe.transformer,
    sites=_sites,
    branches=one_call,
    tokens=_tokens,
    layout=_layout,
    steering="diffusers runs its experts without gradient",
    time="timesteps",
    batch_axis={"encoder_hidden_states_llama3": 1},
)
