"""CogVideoX, text or picture to video (``CogVideoXTransformer3DModel``): joint attention over
[T5, video]. A first frame that is given lies in further channels.
"""

from typing import Any

from diffusers import CogVideoXTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.encoder import Arguments
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    first_channels,
    has_transformer,
    joint_sites,
    one_call,
    t5,
    text_length,
)


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    frames, _channels, height, width = arguments["hidden_states"].shape[1:]
    patch, patch_t, text = (
        transformer.config.patch_size,
        transformer.config.patch_size_t or 1,
        text_length(arguments),
    )
    return Layout(
        (-(-frames // patch_t), height // patch, width // patch), slice(text, None), slice(text)
    )


FAMILY = Family(
    name="cogvideox",
    matches=has_transformer(CogVideoXTransformer3DModel),
    sites=joint_sites,
    branches=one_call,
    encoders=t5,
    layout=_layout,
    latents=first_channels(2),
    channels=2,
    encode=MAKES_VIDEOS,
    batch_axis={"image_rotary_emb": None, "ofs": None},
)
