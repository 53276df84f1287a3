"""Ideogram 4 (``Ideogram4Transformer2DModel``): joint attention over [Qwen3-VL, picture]; the
unconditional prediction is that of another denoiser, which reads no text.

So there is one call per step, and a change of the latents in it would not reach the other one:
there is no steering. Text is filled up from the left, which is masked, and empty cells stand for it
among the latents. Its text encoder is run layer by layer, so that no ids are seen to reach it.
``position_ids`` hold the row and the column of each cell.
"""

from dataclasses import replace
from typing import Any

from diffusers import Ideogram4Transformer2DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.autoencoder import encoded, whitened
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, chat, has_transformer, in_line, transformer_sites
from attncontrol.prompts.tokens import Token, tokenize

_PICTURE = 2  # in ``indicator``


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, lambda *_: "joint", 2)


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    message = {"role": "user", "content": [{"type": "text", "text": MARK}]}
    around = chat(pipe.tokenizer, [message], add_generation_prompt=True)
    tokens = tokenize(
        pipe.tokenizer, prompt, padding=False, add_special_tokens=False, around=around
    )
    left = encoding["max_sequence_length"] - len(tokens)
    filling = [Token(0, 0, "", 0, 0, special=True)] * left
    return tuple(replace(token, index=i) for i, token in enumerate([*filling, *tokens]))


def _text(arguments: Arguments) -> int:
    """How many positions come before the picture."""
    cells = int((arguments["indicator"][0] == _PICTURE).sum())
    return arguments["indicator"].shape[1] - cells


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    text = _text(arguments)
    own = arguments["position_ids"][0, text:, 1:]
    height, width = (own.amax(0) - own.amin(0) + 1).tolist()
    return in_line(text, [(height, width)])


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """The channels of a cell of z are the last axis of a token."""
    latents, side = encoded(pipe, pictures), pipe.patch_size
    height, width = (size // side for size in latents.shape[2:])
    cells = latents.unflatten(3, (width, side)).unflatten(2, (height, side))
    tokens = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return whitened(pipe, tokens, pipe.vae.config.batch_norm_eps)


FAMILY = Family(
    name="ideogram4",
    matches=has_transformer(Ideogram4Transformer2DModel),
    sites=_sites,
    branches=lambda _, nth, __: ("cond",)[nth:],
    encoders=lambda _: (Encoder("text", None, _read),),
    layout=_layout,
    steering="its unconditional prediction is that of another denoiser, which would not see it",
    latents=lambda _, arguments: (slice(None), slice(_text(arguments), None)),
    encode=_encode,
)
