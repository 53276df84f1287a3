"""EasyAnimate 5.1 (``EasyAnimateTransformer3DModel``): joint attention over
[Qwen2-VL, video], [uncond, cond] in one call per step.

The pipeline writes the prompt into a chat. Padding is not masked. Models whose text is that of
BERT are others.
"""

import math
from typing import Any

from diffusers import (
    EasyAnimateInpaintPipeline,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
)

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    MARK,
    chat,
    has_transformer,
    joint_sites,
    one_call,
    text_length,
    video_grid,
)
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    messages = [{"role": "user", "content": [{"type": "text", "text": MARK}]}]
    around = chat(pipe.tokenizer, messages, add_generation_prompt=True)
    length = encoding["max_sequence_length"]
    return tokenize(pipe.tokenizer, prompt, length=length, around=around, encoder="qwen")


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    grid, text = video_grid(transformer, arguments), text_length(arguments)
    return Layout(grid, slice(text, text + math.prod(grid)), slice(text))


_PIPELINES = EasyAnimatePipeline, EasyAnimateInpaintPipeline

FAMILY = Family(
    name="easyanimate",
    matches=has_transformer(EasyAnimateTransformer3DModel, of=_PIPELINES),
    sites=joint_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read),),
    layout=_layout,
    encode=MAKES_VIDEOS,
)
