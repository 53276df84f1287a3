"""Bria FIBO 2 (``BriaFibo2Transformer2DModel``): self-attention over [gist, picture], and
cross-attention of both to Qwen3-VL in some blocks; two calls per step.

The gist is made of the text before, by attention that is no site: as many tokens as the text is
long, behind the picture where the prompts of a batch have different numbers. The pipeline writes
the prompt into a template and fills up to the longest of a batch, which is masked. Captions in JSON
are read as the pipeline writes them anew.
"""

from typing import Any

from diffusers import BriaFibo2Transformer2DModel
from diffusers.models.transformers.transformer_bria_fibo2 import compute_gist_count
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.errors import CallError
from attncontrol.families import cogview4
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    MARK,
    has_transformer,
    patch_grid,
    transformer_sites,
    two_calls,
)
from attncontrol.prompts.tokens import Token, tokenize


def _kind(name: str, _: Any) -> Kind | None:
    if name.startswith("perceiver."):
        return None
    return "cross" if name.endswith("cross_attention") else "self"


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, _kind, transformer.config.patch_size)


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    if encoding.get("text_images") is not None:
        raise CallError(
            "the text encoder of FIBO 2 was shown pictures of the text to write, whose positions "
            "are not described; call the pipeline with render_text_images=False"
        )
    before, after = pipe.prompt_template_encode.format(MARK).split(MARK)
    tokenizer, most = pipe.processor.tokenizer, pipe.tokenizer_max_length
    own = tokenize(
        tokenizer, prompt, length=most, padding=False, around=(before, after), encoder="qwen"
    )
    if tokenizer.padding_side != "left":
        return own
    texts = cogview4.together(prompt, encoding)
    longest = max(len(tokenizer(before + text + after).input_ids) for text in texts)
    return cogview4.filled(tokenizer, own, min(longest, most), 1)


def _gist(transformer: Any, arguments: Arguments) -> int:
    """Where the picture begins: behind the gist, or before it where rows have different ones."""
    states, mask = arguments["encoder_hidden_states"], arguments.get("encoder_attention_mask")
    lengths = [states.shape[2]] * len(states) if mask is None else mask.sum(1).tolist()
    config = transformer.config
    counts = compute_gist_count(
        lengths, config.min_num_gist_tokens, config.max_num_gist_tokens, config.gist_step,
        config.gist_min_text_len, config.gist_max_text_len,
    )  # fmt: skip
    return counts[0] if len(set(counts)) == 1 else 0


def _layout(transformer: Any, arguments: Arguments, site: Site) -> Layout:
    if arguments.get("context_latents"):
        raise CallError("FIBO 2 with pictures to edit is not described; call it without image=...")
    height, width = patch_grid(transformer, arguments)
    first = 0 if site.name.startswith("noise_refiner.") else _gist(transformer, arguments)
    return Layout((height, width), slice(first, first + height * width))


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """By the batch norm of the autoencoder, as of pictures to edit."""
    latents: Tensor
    (latents,) = pipe.prepare_image_latents([pictures], 1, pipe.vae.device, pictures.dtype)
    return latents


FAMILY = Family(
    name="fibo2",
    matches=has_transformer(BriaFibo2Transformer2DModel),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read),),
    layout=_layout,
    encode=_encode,
)
