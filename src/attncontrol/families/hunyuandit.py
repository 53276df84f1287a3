"""HunyuanDiT (``HunyuanDiT2DModel``): cross-attention to [BERT 77, T5 256]; padding is replaced by
a learned vector, not masked."""

from typing import Any

from diffusers import HunyuanDiT2DModel

from attncontrol.attention.sites import Where
from attncontrol.families.family import Arguments, Family
from attncontrol.families.parts import cross_sites, one_call, patch_layout
from attncontrol.prompts.tokens import Token, tokenize


def _tokens(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    bert = tokenize(pipe.tokenizer, prompt, length=pipe.transformer.config.text_len, encoder="bert")
    length = pipe.transformer.config.text_len_t5
    return bert + tokenize(pipe.tokenizer_2, prompt, length=length, offset=len(bert), encoder="t5")


FAMILY = Family(
    name="hunyuandit",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), HunyuanDiT2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=cross_sites,
    branches=one_call,
    tokens=_tokens,
    layout=patch_layout,
    steering=lambda _: (Where(kind="cross"), 20.0),
    batch_axis={"image_rotary_emb": None},
)
