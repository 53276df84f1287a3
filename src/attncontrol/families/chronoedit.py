"""ChronoEdit (``ChronoEditTransformer3DModel``), which makes a video from a picture to the edited
one: a denoiser of its own with the attention, the text, the features of a picture and the calls of
Wan 2.1.
"""

from dataclasses import replace

from diffusers import ChronoEditTransformer3DModel

from attncontrol.families import wan
from attncontrol.families.parts import has_transformer

FAMILY = replace(
    wan.FAMILY,
    name="chronoedit",
    matches=has_transformer(ChronoEditTransformer3DModel),
)
