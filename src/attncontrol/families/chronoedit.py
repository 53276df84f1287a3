"""ChronoEdit (``ChronoEditTransformer3DModel``), which makes a video from a picture to the edited
one: a denoiser of its own with the attention, the text, the features of a picture and the calls of
Wan 2.1.
"""

from dataclasses import replace

from diffusers import ChronoEditTransformer3DModel

from attncontrol.families import wan

FAMILY = replace(
    wan.FAMILY,
    name="chronoedit",
    matches=lambda pipe: isinstance(
        getattr(pipe, "transformer", None), ChronoEditTransformer3DModel
    ),
    denoiser=lambda pipe: pipe.transformer,
)
