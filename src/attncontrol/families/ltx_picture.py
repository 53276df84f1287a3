"""LTX-Video picture to video: the denoiser and the text of ``ltx``. The first frame is given, at a
timestep of 0.

Recording and edits only: the pipeline steps the other frames, in another shape than that of the
network.
"""

from dataclasses import replace

from diffusers import LTXImageToVideoPipeline, LTXVideoTransformer3DModel

from attncontrol.families import ltx
from attncontrol.families.parts import has_transformer

FAMILY = replace(
    ltx.FAMILY,
    name="ltx-picture",
    matches=has_transformer(LTXVideoTransformer3DModel, of=LTXImageToVideoPipeline),
    steering="its scheduler steps the frames after the given one, in another shape",
)
