"""Lumina-Image 2 (``Lumina2Transformer2DModel``): joint attention over [Gemma, picture] in
``layers``, two calls per step.

Padding of the text is left out there, so the picture begins where the text of each row ends. The
pipeline writes a system prompt before the prompt. ``noise_refiner`` sees the picture alone;
``context_refiner``, which sees the text alone, is no site.
"""

from typing import Any

from diffusers import Lumina2Transformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import has_transformer, patch_grid, refiner_sites, two_calls
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    system = encoding.get("system_prompt")
    system = pipe.system_prompt if system is None else system
    return tokenize(
        pipe.tokenizer,
        prompt,
        length=encoding["max_sequence_length"],
        padding=False,
        around=("" if system is False else f"{system} <Prompt Start> ", ""),
        encoder="gemma",
    )


def _layout(transformer: Any, arguments: Arguments, site: Site) -> Layout:
    height, width = patch_grid(transformer, arguments)
    if site.kind == "self":
        return Layout((height, width), text=slice(0))
    texts: list[int] = arguments["encoder_attention_mask"].sum(1).tolist()
    return Layout(
        (height, width),
        tuple(slice(length, length + height * width) for length in texts),
        slice(max(texts)),
    )


FAMILY = Family(
    name="lumina2",
    matches=has_transformer(Lumina2Transformer2DModel),
    sites=refiner_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("gemma", "text_encoder", _read),),
    negative={"system_prompt": False},  # it is read without one
    layout=_layout,
)
