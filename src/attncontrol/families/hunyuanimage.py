"""HunyuanImage 2.1 (``HunyuanImageTransformer2DModel``): joint attention over [picture, ByT5,
Qwen2.5-VL], two calls per step.

ByT5 reads what stands in quotation marks, and only then has positions, which are no words here: its
tokenizer does not tell where they come from. The pipeline writes the prompt into a template and
drops the positions before it. Padding comes last and is masked. Blocks that refine the text are no
sites. The refiner has no ByT5, and reads the picture that it refines in further channels.
"""

from typing import Any

from diffusers import HunyuanImageTransformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MARK,
    first_channels,
    has_transformer,
    transformer_sites,
    two_calls,
)
from attncontrol.prompts.tokens import Token, tokenize


def kind(name: str, _: Any) -> Kind | None:
    return None if name.startswith("context_embedder") else "joint"


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, kind, transformer.config.patch_size[-1])


def _glyphs(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    from diffusers.pipelines.hunyuan_image.pipeline_hunyuanimage import extract_glyph_text

    return letters(pipe, extract_glyph_text(prompt))


def letters(pipe: Any, text: str | None) -> tuple[Token, ...]:
    """What ByT5 reads, which is no part of the prompt's words."""
    if text is None or pipe.transformer.context_embedder_2 is None:
        return ()
    length = pipe.tokenizer_2_max_length
    ids = pipe.tokenizer_2(text, max_length=length, truncation=True).input_ids
    pieces = pipe.tokenizer_2.convert_ids_to_tokens(ids)
    return tuple(
        Token(i, id_, piece, 0, 0, special=True, encoder="byt5")
        for i, (id_, piece) in enumerate(zip(ids, pieces, strict=True))
    )


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    before, after = pipe.prompt_template_encode.format(MARK).split(MARK)
    return tokenize(
        pipe.tokenizer, prompt, padding=False, around=(before, after), encoder="qwen",
        length=pipe.tokenizer_max_length + pipe.prompt_template_encode_start_idx,
    )  # fmt: skip


def kept(pipe: Any, _: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tokens[pipe.prompt_template_encode_start_idx :]


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    sizes = zip(arguments["hidden_states"].shape[2:], transformer.config.patch_size, strict=True)
    height, width = [size // patch for size, patch in sizes][-2:]  # of a single frame
    return Layout((height, width), slice(height * width), slice(height * width, None))


FAMILY = Family(
    name="hunyuanimage",
    matches=has_transformer(HunyuanImageTransformer2DModel),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (
        Encoder("byt5", None, _glyphs),
        Encoder("qwen", "text_encoder", _read, kept=kept),
    ),
    layout=_layout,
    latents=first_channels(1),
    encode=scaled,
    checkpoints=False,
)
