"""Cosmos-Predict 1, text, picture or video to video, and 2, text to image and picture or video to
video (``CosmosTransformer3DModel``): self-attention over the patches, then cross-attention to T5,
two calls per step. Features of padding are zeros, and are not masked. Frames that are given take
the place of the noise.

Pipelines whose text is a language model's have the same denoiser; ``cosmos25`` is one of them.
"""

from typing import Any

from diffusers import CosmosTransformer3DModel

from attncontrol.families.family import Family
from attncontrol.families.parts import cross_sites, t5, two_calls, video_layout

SCALES = "the pipeline scales the latents by itself"
DESCRIBED = (
    "Cosmos2TextToImagePipeline", "CosmosTextToWorldPipeline", "CosmosVideoToWorldPipeline",
    "Cosmos2VideoToWorldPipeline",
)  # fmt: skip


def _matches(pipe: Any) -> bool:
    transformer = getattr(pipe, "transformer", None)
    names = {cls.__name__ for cls in type(pipe).__mro__}
    return isinstance(transformer, CosmosTransformer3DModel) and not names.isdisjoint(DESCRIBED)


FAMILY = Family(
    name="cosmos",
    matches=_matches,
    sites=cross_sites,
    branches=two_calls,
    encoders=t5,
    layout=video_layout,
    steering=f"{SCALES}, so a step would have another size",
    encode=SCALES,
    batch_axis={"padding_mask": None},
)
