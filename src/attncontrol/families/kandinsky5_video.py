"""Kandinsky 5 text to video: the denoiser and the text of its pictures, with more frames.

Behind the channels of the latents it has those of a given frame, zero where there is none.
"""

from dataclasses import replace
from typing import Any

from diffusers import Kandinsky5T2VPipeline

from attncontrol.families import kandinsky5
from attncontrol.families.encoder import Arguments
from attncontrol.families.parts import MAKES_VIDEOS


def _latents(transformer: Any, _: Arguments) -> tuple[slice, ...]:
    return (*[slice(None)] * 4, slice(transformer.config.out_visual_dim))


FAMILY = replace(
    kandinsky5.FAMILY,
    name="kandinsky5-video",
    matches=lambda pipe: kandinsky5.has_denoiser(pipe) and isinstance(pipe, Kandinsky5T2VPipeline),
    latents=_latents,
    encode=MAKES_VIDEOS,
)
