"""PRX (``PRXTransformer2DModel``): the picture attends to [T5-Gemma, picture]; one call per step.
Padding is masked. Text has no queries."""

from typing import Any

from diffusers import PRXTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    has_transformer,
    joint_sites,
    one_call,
    patch_grid,
    text_length,
)
from attncontrol.prompts.origin import aligned
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    cleaner, plain = pipe.text_preprocessor, encoding.get("skip_text_cleaning")
    text = cleaner.basic_clean(prompt) if plain else cleaner.clean_text(prompt)
    return tokenize(
        pipe.tokenizer, prompt, length=encoding.get("tokenizer_max_length"), encoder="text",
        written=(text, aligned(prompt, text)),
    )  # fmt: skip


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    return Layout(patch_grid(transformer, arguments), text=slice(text_length(arguments)))


FAMILY = Family(
    name="prx",
    matches=has_transformer(PRXTransformer2DModel),
    sites=joint_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("text", "text_encoder", _read),),
    layout=_layout,
)
