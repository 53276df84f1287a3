"""LTX-Video, text, picture or pictures to video (``LTXVideoTransformer3DModel``): self-attention,
then cross-attention to T5, on packed latents.

A first frame that is given takes the place of the noise; pictures and clips of later frames lie
before the video.
"""

from typing import Any

from diffusers import LTXImageToVideoPipeline, LTXVideoTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families.encoder import Arguments
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    has_transformer,
    one_call,
    t5,
    transformer_sites,
)


def _denoiser(pipe: Any) -> Any:
    if type(pipe).__name__ == "LTXI2VLongMultiPromptPipeline":
        raise ModelError(
            "LTXI2VLongMultiPromptPipeline makes a video window by window, each with latents and a "
            "text of its own; LTXPipeline, LTXImageToVideoPipeline and LTXConditionPipeline are "
            "supported"
        )
    return pipe.transformer


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(
        transformer, lambda name, _: "cross" if name.endswith("attn2") else "self", 1
    )


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    if arguments.get("video_coords") is None:
        return Layout((arguments["num_frames"], arguments["height"], arguments["width"]))
    times, *sides = arguments["video_coords"][0]
    height, width = (len(side.unique()) for side in sides)
    start = int((times == times.min()).nonzero()[0])  # no other begins when the video does
    given = (start // (height * width), height, width)
    return Layout(
        ((len(times) - start) // (height * width), height, width), slice(start, None),
        references=(Layout(given, slice(start)),) if start else (),
    )  # fmt: skip


FAMILY = Family(
    name="ltx",
    matches=has_transformer(LTXVideoTransformer3DModel, but=LTXImageToVideoPipeline),
    denoiser=_denoiser,
    sites=_sites,
    branches=one_call,
    encoders=t5,
    layout=_layout,
    encode=MAKES_VIDEOS,
)
