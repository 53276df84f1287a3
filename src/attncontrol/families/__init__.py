"""Facts of model architectures, one file each. A family is a value: nothing here acts on a
pipeline."""

from attncontrol.attention.call import Layout
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.known import FAMILIES, family_of
from attncontrol.families.parts import (
    has_transformer,
    one_call,
    patch_grid,
    patch_layout,
    text_length,
    transformer_sites,
    two_calls,
)

__all__ = [
    "FAMILIES",
    "Arguments",
    "Encoder",
    "Family",
    "Layout",
    "family_of",
    "has_transformer",
    "one_call",
    "patch_grid",
    "patch_layout",
    "text_length",
    "transformer_sites",
    "two_calls",
]
