"""CogView3-Plus (``CogView3PlusTransformer2DModel``): joint attention over [T5, picture], one call
per step. Zeros stand for the text where there is no negative prompt."""

from typing import Any

from diffusers import CogView3PlusTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    has_transformer,
    in_line,
    joint_sites,
    one_call,
    patch_grid,
    t5,
    text_length,
)


def layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    return in_line(text_length(arguments), [patch_grid(transformer, arguments)])


FAMILY = Family(
    name="cogview3",
    matches=has_transformer(CogView3PlusTransformer2DModel),
    sites=joint_sites,
    branches=one_call,
    encoders=t5,
    layout=layout,
    encode=scaled,
)
