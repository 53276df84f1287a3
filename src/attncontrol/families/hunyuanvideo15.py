"""HunyuanVideo 1.5 (``HunyuanVideo15Transformer3DModel``), text or picture to video: joint
attention over [video, SigLIP, ByT5, Qwen2.5-VL, padding], two calls per step.

ByT5 reads what stands in quotation marks, as in HunyuanImage. A first frame that is given lies in
further channels, too, and features of it are no text; without one their places come last, masked.
The prompt is written into a chat, and the positions before it are dropped. Blocks that refine the
text are no sites.
"""

import math
from dataclasses import replace
from typing import Any

from diffusers import (
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import hunyuanimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.parts import (
    MAKES_VIDEOS,
    MARK,
    chat,
    first_channels,
    has_transformer,
    transformer_sites,
    video_grid,
)
from attncontrol.prompts.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, hunyuanimage.kind, transformer.config.patch_size)


def _glyphs(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5 import extract_glyph_texts

    return hunyuanimage.letters(pipe, extract_glyph_texts(prompt))


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    roles = ("system", pipe.system_message), ("user", MARK)
    messages = [{"role": role, "content": content} for role, content in roles]
    around = chat(pipe.tokenizer, messages, add_generation_prompt=True)
    return tokenize(
        pipe.tokenizer, prompt or " ", padding=False, around=around, encoder="qwen",
        length=pipe.tokenizer_max_length + pipe.prompt_template_encode_start_idx,
    )  # fmt: skip


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    grid = video_grid(transformer, arguments)
    cells, features = math.prod(grid), arguments["image_embeds"]
    given = features.shape[1] if bool(features.any()) else 0
    return Layout(grid, slice(cells), slice(cells + given, None))


FAMILY = replace(
    hunyuanimage.FAMILY,
    name="hunyuanvideo15",
    matches=has_transformer(
        HunyuanVideo15Transformer3DModel,
        of=(HunyuanVideo15Pipeline, HunyuanVideo15ImageToVideoPipeline),
    ),
    sites=_sites,
    encoders=lambda _: (
        Encoder("byt5", None, _glyphs),
        Encoder("qwen", "text_encoder", _read, kept=hunyuanimage.kept),
    ),
    layout=_layout,
    latents=first_channels(1),
    encode=MAKES_VIDEOS,
    checkpoints=True,
)
