"""Krea 2 (``Krea2Transformer2DModel``): joint attention over [Qwen3-VL, picture], packed latents,
two calls per step.

The pipeline writes the prompt into a template, fills up to a number of positions, which are masked,
before what ends the template, and drops the positions before the prompt. ``position_ids`` hold
(0, row, column) of each position. Blocks that fuse and refine the text are no sites.
"""

import sys
from dataclasses import replace
from typing import Any

from diffusers import Krea2Transformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families import qwenimage
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    has_transformer,
    in_line,
    is_modular,
    said_by,
    text_length,
    transformer_sites,
    two_calls,
)
from attncontrol.prompts.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(
        transformer, lambda name, _: "joint" if name.startswith("transformer_blocks") else None, 2
    )


def _said(pipe: Any, name: str) -> Any:
    """Of the template of the pipeline; blocks of a modular one have it as constants beside them."""
    if not is_modular(pipe):
        return getattr(pipe, f"prompt_template_encode_{name}")
    module = said_by(pipe, "_encode_prompt").__module__
    return getattr(sys.modules[module], f"_PROMPT_TEMPLATE_ENCODE_{name.upper()}")


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    room = _said(pipe, "start_idx") - _said(pipe, "num_suffix_tokens")
    tokens = tokenize(
        pipe.tokenizer, prompt, length=encoding["max_sequence_length"] + room,
        around=(_said(pipe, "prefix"), ""), encoder="qwen",
    )  # fmt: skip
    end = tokenize(pipe.tokenizer, "", padding=False, encoder="qwen",
                   around=(_said(pipe, "suffix"), ""))  # fmt: skip
    return *tokens, *(replace(token, index=token.index + len(tokens)) for token in end)


def _kept(pipe: Any, _: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tokens[_said(pipe, "start_idx") :]


def _layout(_: Any, arguments: Arguments, __: Site) -> Layout:
    text = text_length(arguments)
    height, width = (arguments["position_ids"][text:, 1:].amax(0) + 1).int().tolist()
    return in_line(text, [(height, width)])


FAMILY = Family(
    name="krea2",
    matches=has_transformer(Krea2Transformer2DModel),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    encode=qwenimage.FAMILY.encode,
    batch_axis={"position_ids": None},
    unguided=0.0,
)
