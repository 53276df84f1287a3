"""FLUX.2 (``Flux2Transformer2DModel``): the layout of FLUX.1, with text of Mistral 3 (dev,
distilled guidance) or Qwen3 (klein).

The pipelines write the prompt into a chat template and fill up to ``max_sequence_length``
positions, which are not masked. Klein without distillation makes two calls per step.
"""

import inspect
from typing import Any

from diffusers import Flux2Transformer2DModel
from torch import Tensor

from attncontrol.errors import CallError
from attncontrol.families import flux
from attncontrol.families.autoencoder import encoded, whitened
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, chat, has_transformer, is_modular, said_by
from attncontrol.prompts.tokens import Token, tokenize


def _system(pipe: Any) -> str | None:
    """What the template of dev begins with; None for klein."""
    encode = said_by(pipe, "_get_mistral_3_prompt_embeds", None)
    if not is_modular(pipe) or encode is None:
        return getattr(pipe, "system_message", None)
    default: str = inspect.signature(encode).parameters["system_message"].default
    return default


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    system = _system(pipe)
    dev = system is not None
    if dev:
        texts = [("system", system), ("user", MARK)]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts
        ]
        around = chat(pipe.tokenizer, messages, add_generation_prompt=False)
    else:
        around = chat(
            pipe.tokenizer,
            [{"role": "user", "content": MARK}],
            add_generation_prompt=True,
            enable_thinking=False,
        )
    tokenizer = getattr(
        pipe.tokenizer, "tokenizer", pipe.tokenizer
    )  # of a processor for text and pictures
    length = encoding["max_sequence_length"]
    # the template of Mistral writes the special tokens itself
    return tokenize(
        tokenizer, prompt, length=length, add_special_tokens=not dev, around=around, encoder="chat"
    )


def _latents(transformer: Any, arguments: Arguments) -> tuple[slice, ...]:
    if arguments.get("kv_cache") is not None:
        raise CallError(
            "FLUX.2 with cached keys of reference pictures is not supported; use Flux2KleinPipeline"
        )
    return flux.FAMILY.latents(transformer, arguments)


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    tokens = pipe._pack_latents(pipe._patchify_latents(encoded(pipe, pictures)))
    return whitened(pipe, tokens, pipe.vae.config.batch_norm_eps)


FAMILY = Family(
    name="flux2",
    matches=has_transformer(Flux2Transformer2DModel),
    sites=flux.FAMILY.sites,
    branches=flux.FAMILY.branches,
    encoders=lambda _: (Encoder("chat", "text_encoder", _read),),
    layout=flux.FAMILY.layout,
    steering=flux.FAMILY.steering,
    latents=_latents,
    encode=_encode,
)
