"""LTX-Video (``LTXVideoTransformer3DModel``): self-attention, then cross-attention to T5, on packed
latents.
"""

from typing import Any

from diffusers import LTXVideoTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.family import Family
from attncontrol.families.parts import MAKES_VIDEOS, one_call, t5, transformer_sites


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(
        transformer, lambda name, _: "cross" if name.endswith("attn2") else "self", 1
    )


FAMILY = Family(
    name="ltx",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), LTXVideoTransformer3DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=_sites,
    branches=one_call,
    encoders=t5,
    layout=lambda _, arguments, __: Layout(
        (arguments["num_frames"], arguments["height"], arguments["width"])
    ),
    encode=MAKES_VIDEOS,
)
