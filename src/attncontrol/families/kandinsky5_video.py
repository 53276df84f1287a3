"""Kandinsky 5 text to video: the denoiser and the text of its pictures, with more frames.

Recording only.
"""

from dataclasses import replace

from diffusers import Kandinsky5T2VPipeline

from attncontrol.families import kandinsky5
from attncontrol.families.parts import MAKES_VIDEOS, VIDEO

FAMILY = replace(
    kandinsky5.FAMILY,
    name="kandinsky5-video",
    matches=lambda pipe: kandinsky5.has_denoiser(pipe) and isinstance(pipe, Kandinsky5T2VPipeline),
    steering=VIDEO,
    encode=MAKES_VIDEOS,
)
