"""LTX-2 with a first frame, or with pictures and clips of any frames: the denoiser and the text of
``ltx2``. A first frame takes the place of the noise, at a timestep of 0.

Recording and edits only: frames that are given lie among the latents.
"""

from dataclasses import replace

from diffusers import LTX2ConditionPipeline, LTX2ImageToVideoPipeline, LTX2VideoTransformer3DModel

from attncontrol.families import ltx2
from attncontrol.families.parts import has_transformer

_PIPELINES = LTX2ImageToVideoPipeline, LTX2ConditionPipeline

FAMILY = replace(
    ltx2.FAMILY,
    name="ltx2-picture",
    matches=has_transformer(LTX2VideoTransformer3DModel, of=_PIPELINES),
    steering="frames that are given lie among its latents, and a step would move them",
)
