"""Kandinsky 5 (``Kandinsky5Transformer3DModel``): self-attention, then cross-attention to
Qwen2.5-VL; two calls per step. CLIP enters as a pooled vector only.

Pictures have one frame. The pipeline cleans the prompt, writes it into a template and drops the
positions before it; padding is not masked. Blocks of the text alone are no sites.
"""

from typing import Any

from diffusers import (
    Kandinsky5I2VPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
)
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.families.autoencoder import scaled
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import MARK, has_transformer, transformer_sites, two_calls
from attncontrol.prompts.origin import aligned
from attncontrol.prompts.tokens import Token, tokenize

VIDEOS = (Kandinsky5T2VPipeline, Kandinsky5I2VPipeline)  # a family of its own


def _kind(name: str, _: Any) -> Kind | None:
    if not name.startswith("visual_transformer_blocks"):
        return None
    return "cross" if name.endswith("cross_attention") else "self"


def _sites(transformer: Any) -> tuple[Site, ...]:
    return transformer_sites(transformer, _kind, transformer.patch_size[-1])


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    from diffusers.pipelines.kandinsky5.pipeline_kandinsky_t2i import prompt_clean

    tokenizer, text = getattr(pipe.tokenizer, "tokenizer", pipe.tokenizer), prompt_clean(prompt)
    before, after = pipe.prompt_template.format(MARK).split(MARK)
    return tokenize(
        tokenizer, prompt, padding=False, around=(before, after), encoder="qwen",
        length=pipe.prompt_template_encode_start_idx + encoding["max_sequence_length"],
        written=(text, aligned(prompt, text)),
    )  # fmt: skip


def _kept(pipe: Any, _: Arguments, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    return tokens[pipe.prompt_template_encode_start_idx :]


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    shape = arguments["hidden_states"].shape[1:4]
    frames, height, width = (
        size // patch for size, patch in zip(shape, transformer.patch_size, strict=True)
    )
    return Layout((height, width) if frames == 1 else (frames, height, width))


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Channels come last."""
    return scaled(pipe, pictures).movedim(1, -1)[:, None]


FAMILY = Family(
    name="kandinsky5",
    matches=has_transformer(Kandinsky5Transformer3DModel, but=VIDEOS),
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("qwen", "text_encoder", _read, kept=_kept),),
    layout=_layout,
    channels=-1,
    encode=_encode,
    batch_axis={"visual_rope_pos": None, "text_rope_pos": None, "scale_factor": None},
)
