"""HunyuanDiT (``HunyuanDiT2DModel``): cross-attention to [BERT 77, T5 256]; padding is replaced by
a learned vector, not masked."""

from typing import Any

from diffusers import HunyuanDiT2DModel

from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import cross_sites, has_transformer, one_call, patch_layout
from attncontrol.prompts.tokens import Token, tokenize


def _bert(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    length = pipe.transformer.config.text_len
    return tokenize(pipe.tokenizer, prompt, length=length, encoder="bert")


def _t5(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    length = pipe.transformer.config.text_len_t5
    return tokenize(pipe.tokenizer_2, prompt, length=length, encoder="t5")


_ENCODERS = (Encoder("bert", "text_encoder", _bert), Encoder("t5", "text_encoder_2", _t5))


FAMILY = Family(
    name="hunyuandit",
    matches=has_transformer(HunyuanDiT2DModel),
    sites=cross_sites,
    branches=one_call,
    encoders=lambda _: _ENCODERS,
    layout=patch_layout,
    encode=scaled,
    batch_axis={"image_rotary_emb": None},
)
