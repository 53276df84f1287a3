"""LTX-Video picture to video: the denoiser and the text of ``ltx``. The first frame is given, at a
timestep of 0.

Recording and edits only: the pipeline steps the other frames, in another shape than that of the
network.
"""

from dataclasses import replace

from diffusers import LTXImageToVideoPipeline

from attncontrol.families import ltx

FAMILY = replace(
    ltx.FAMILY,
    name="ltx-picture",
    matches=lambda pipe: ltx.has_denoiser(pipe) and isinstance(pipe, LTXImageToVideoPipeline),
    steering="its scheduler steps the frames after the given one, in another shape",
)
