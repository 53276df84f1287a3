"""Chroma (``ChromaTransformer2DModel``): FLUX.1 without CLIP, text masked after the first padding
position, two calls per step."""

from dataclasses import replace
from typing import Any

import torch
from diffusers import ChromaTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families import flux
from attncontrol.families.encoder import Arguments
from attncontrol.families.parts import has_transformer, t5


def _layout(transformer: Any, arguments: Arguments, site: Site) -> Layout:
    if transformer.gradient_checkpointing and torch.is_grad_enabled():
        raise ModelError(
            "diffusers drops the attention mask of Chroma under gradient checkpointing, so the "
            "gradients would be those of another model; call "
            "pipe.transformer.disable_gradient_checkpointing()"
        )
    return flux.FAMILY.layout(transformer, arguments, site)


FAMILY = replace(
    flux.FAMILY,
    name="chroma",
    matches=has_transformer(ChromaTransformer2DModel),
    encoders=t5,
    layout=_layout,
    further=None,
)
