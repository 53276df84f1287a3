"""PixArt-alpha and -Sigma (``PixArtTransformer2DModel``): self-attention, then cross-attention to
T5."""

from diffusers import PixArtTransformer2DModel

from attncontrol.attention.sites import Where
from attncontrol.families.autoencoder import scaled
from attncontrol.families.family import Family
from attncontrol.families.parts import cross_sites, one_call, patch_layout, t5

FAMILY = Family(
    name="pixart",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), PixArtTransformer2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=cross_sites,
    branches=one_call,
    encoders=t5,
    layout=patch_layout,
    encode=scaled,
    steering=lambda _: (Where(kind="cross"), None),
    further="words",
)
