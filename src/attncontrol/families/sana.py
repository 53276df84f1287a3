"""Sana (``SanaTransformer2DModel``): cross-attention to Gemma. Its linear self-attention has no map
and is no site.

The pipeline writes an instruction before the prompt and keeps the first and the last positions of
the sequence.
"""

from typing import Any

from diffusers import SanaSprintImg2ImgPipeline, SanaSprintPipeline, SanaTransformer2DModel

from attncontrol.attention.sites import Site
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import as_written, one_call, patch_layout, transformer_sites
from attncontrol.prompts.tokens import Token, tokenize

SPRINT = (SanaSprintPipeline, SanaSprintImg2ImgPipeline)  # a family of its own


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(
        transformer,
        lambda name, _: "cross" if name.endswith("attn2") else None,
        transformer.config.patch_size,
    )


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    length, instruction = (
        encoding["max_sequence_length"],
        "\n".join(encoding["complex_human_instruction"] or ()),
    )
    extra = len(pipe.tokenizer.encode(instruction)) - 2 if instruction else 0
    written = as_written(pipe, pipe.tokenizer, prompt, encoding)
    around = (instruction, "")
    return tokenize(pipe.tokenizer, prompt, length=length + extra, around=around, written=written)


def _kept(_: Any, encoding: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tokens[0], *tokens[len(tokens) - encoding["max_sequence_length"] + 1 :]


def _matches(pipe: Any) -> bool:
    transformer = getattr(pipe, "transformer", None)
    return isinstance(transformer, SanaTransformer2DModel) and not isinstance(pipe, SPRINT)


FAMILY = Family(
    name="sana",
    matches=_matches,
    sites=_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("text", "text_encoder", _read, kept=_kept),),
    negative={"complex_human_instruction": None},
    layout=patch_layout,
    encode=scaled,
)
