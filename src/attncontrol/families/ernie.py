"""ERNIE-Image (``ErnieImageTransformer2DModel``): joint attention over [picture, Mistral 3], one
call per step. Padding is masked."""

from typing import Any

from diffusers import ErnieImageTransformer2DModel
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.autoencoder import encoded, whitened
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import has_transformer, joint_sites, one_call, patch_grid
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    tokens = tokenize(pipe.tokenizer, prompt, padding=False)
    begin = pipe.tokenizer.bos_token_id or 0
    return tokens or (Token(0, begin, "", 0, 0, special=True),)


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    height, width = patch_grid(transformer, arguments)
    return Layout((height, width), slice(height * width), slice(height * width, None))


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """2 x 2 cells to a token; the pipeline has a number of its own beside the variance."""
    patches = pipe._patchify_latents(encoded(pipe, pictures))
    return whitened(pipe, patches.movedim(1, -1), 1e-5).movedim(-1, 1)


FAMILY = Family(
    name="ernie",
    matches=has_transformer(ErnieImageTransformer2DModel),
    sites=joint_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("text", "text_encoder", _read),),
    layout=_layout,
    encode=_encode,
)
