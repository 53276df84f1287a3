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

FAMILY = replace(
    wan.FAMILY,
    name="skyreels",
    matches=lambda pipe: (
        isinstance(pipe, (SkyReelsV2Pipeline, SkyReelsV2ImageToVideoPipeline))
        and isinstance(getattr(pipe, "transformer", None), SkyReelsV2Transformer3DModel)
    ),
)
