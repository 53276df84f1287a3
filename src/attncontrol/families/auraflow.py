"""AuraFlow (``AuraFlowTransformer2DModel``): joint attention over [registers, text, picture], in
joint and single blocks."""

from typing import Any

from diffusers import AuraFlowTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    has_transformer,
    joint_sites,
    one_call,
    patch_grid,
    text_length,
)
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=encoding["max_sequence_length"])


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    registers, (height, width) = (
        transformer.register_tokens.shape[1],
        patch_grid(transformer, arguments),
    )
    text = registers + text_length(arguments)
    return Layout((height, width), slice(text, text + height * width), slice(registers, text))


FAMILY = Family(
    name="auraflow",
    matches=has_transformer(AuraFlowTransformer2DModel),
    sites=joint_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("text", "text_encoder", _read),),
    layout=_layout,
    encode=scaled,
    steering=lambda _: (Where(kind="joint", layers=("joint_transformer_blocks",)), None),
)
