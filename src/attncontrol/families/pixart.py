"""PixArt-alpha and -Sigma (``PixArtTransformer2DModel``): self-attention, then cross-attention to
T5."""

from diffusers import PixArtTransformer2DModel

from attncontrol.families.autoencoder import scaled
from attncontrol.families.family import Family
from attncontrol.families.parts import cross_sites, has_transformer, one_call, patch_layout, t5

FAMILY = Family(
    name="pixart",
    matches=has_transformer(PixArtTransformer2DModel),
    sites=cross_sites,
    branches=one_call,
    encoders=t5,
    layout=patch_layout,
    encode=scaled,
    further="words",
)
