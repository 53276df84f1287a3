"""Ovis-Image (``OvisImageTransformer2DModel``): the layout of FLUX.1, with text of Qwen3 alone; two
calls per step.

The pipeline writes the prompt after an instruction into a chat template, fills up to a number of
positions, which are not masked, and drops those before the prompt.
"""

from typing import Any

from diffusers import OvisImageTransformer2DModel

from attncontrol.families import flux
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, chat, has_transformer, two_calls
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    message = {"role": "user", "content": pipe.system_prompt + MARK}
    around = chat(pipe.tokenizer, [message], add_generation_prompt=True, enable_thinking=False)
    length = encoding["max_sequence_length"] + pipe.user_prompt_begin_id
    return tokenize(
        pipe.tokenizer, prompt, length=length, add_special_tokens=False, around=around,
        encoder="qwen",
    )  # fmt: skip


def _kept(pipe: Any, _: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tokens[pipe.user_prompt_begin_id :]


FAMILY = Family(
    name="ovis",
    matches=has_transformer(OvisImageTransformer2DModel),
    sites=flux.FAMILY.sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=flux.FAMILY.layout,
    encode=flux.FAMILY.encode,
    batch_axis=flux.FAMILY.batch_axis,
)
