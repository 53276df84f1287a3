"""SkyReels-V2, text or picture to video (``SkyReelsV2Transformer3DModel``): a denoiser of its own
with the attention, the text, the features of a picture and the calls of Wan 2.1.

Diffusion forcing, whose frames have timesteps of their own, is another pipeline.
"""

from dataclasses import replace

from diffusers import (
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
)

from attncontrol.families import wan
from attncontrol.families.parts import has_transformer

FAMILY = replace(
    wan.FAMILY,
    name="skyreels",
    matches=has_transformer(
        SkyReelsV2Transformer3DModel, of=(SkyReelsV2Pipeline, SkyReelsV2ImageToVideoPipeline)
    ),
)
