"""Kandinsky 5, text or picture to video: the denoiser and the text of its pictures, with more
frames.

Behind the channels of the latents it has others, of which the last says which frames are given:
the first one, or none. The scheduler steps those that are not.
"""

from dataclasses import replace
from typing import Any

from diffusers import Kandinsky5Transformer3DModel

from attncontrol.families import kandinsky5
from attncontrol.families.encoder import Arguments
from attncontrol.families.parts import MAKES_VIDEOS, has_transformer


def _latents(transformer: Any, arguments: Arguments) -> tuple[slice, ...]:
    channels = slice(transformer.config.out_visual_dim)
    tells = transformer.config.visual_cond
    given = int(tells and bool(arguments["hidden_states"][:, 0, ..., -1].all()))
    return (slice(None), slice(given, None), slice(None), slice(None), channels)


FAMILY = replace(
    kandinsky5.FAMILY,
    name="kandinsky5-video",
    matches=has_transformer(Kandinsky5Transformer3DModel, of=kandinsky5.VIDEOS),
    latents=_latents,
    encode=MAKES_VIDEOS,
)
