"""Allegro (``AllegroTransformer3DModel``): self-attention over the patches of all frames, then
cross-attention to T5, one call per step. Padding is masked.
"""

from diffusers import AllegroTransformer3DModel

from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    cross_sites,
    has_transformer,
    one_call,
    t5,
    video_layout,
)

FAMILY = Family(
    name="allegro",
    matches=has_transformer(AllegroTransformer3DModel),
    sites=cross_sites,
    branches=one_call,
    encoders=t5,
    layout=video_layout,
    encode=MAKES_VIDEOS,
    batch_axis={"image_rotary_emb": None},
)
