"""Cosmos-Predict 2.5, text, picture or video to video (``CosmosTransformer3DModel``):
self-attention over the patches, then cross-attention to Qwen2.5-VL, two calls per step.

The prompt is written into a chat, whose positions are keys too, as is padding, which is not masked.
Frames that are given take the place of the noise.
"""

from typing import Any

from diffusers import Cosmos2_5_PredictBasePipeline, CosmosTransformer3DModel

from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    MARK,
    chat,
    cross_sites,
    has_transformer,
    two_calls,
    video_layout,
)
from attncontrol.prompts.tokens import Token, tokenize

_SYSTEM = "You are a helpful assistant who will provide prompts to an image generator."


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    roles = ("system", _SYSTEM), ("user", MARK)
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in roles]
    around = chat(pipe.tokenizer, messages, add_generation_prompt=False, add_vision_id=False)
    length = encoding["max_sequence_length"]
    return tokenize(pipe.tokenizer, prompt, length=length, around=around, encoder="qwen")


FAMILY = Family(
    name="cosmos25",
    matches=has_transformer(CosmosTransformer3DModel, of=Cosmos2_5_PredictBasePipeline),
    sites=cross_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read),),
    layout=video_layout,
    encode=MAKES_VIDEOS,
    batch_axis={"padding_mask": None},
)
