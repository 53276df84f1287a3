"""Wan 2.1 text to video (``WanTransformer3DModel``): self-attention, then cross-attention to UMT5;
two calls per step.

Recording only.
"""

from typing import Any

from diffusers import WanTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import VIDEO, transformer_sites, two_calls
from attncontrol.prompts.origin import aligned
from attncontrol.prompts.tokens import Token, tokenize


def _denoiser(pipe: Any) -> Any:
    if getattr(pipe, "transformer_2", None) is not None:
        raise ModelError(
            "Wan 2.2 changes its denoiser in the middle of a run; only models with one denoiser "
            "are supported"
        )
    return pipe.transformer


def _sites(transformer: Any) -> tuple[Site, ...]:
    if transformer.config.added_kv_proj_dim is not None:
        raise ModelError(
            "image-to-video models of Wan attend to the first frame before the text; not supported"
        )
    patch = transformer.config.patch_size[-1]
    return transformer_sites(
        transformer, lambda name, _: "cross" if name.endswith("attn2") else "self", patch
    )


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    length, text = encoding["max_sequence_length"], prompt_clean(prompt)
    written = text, aligned(prompt, text)
    return tokenize(pipe.tokenizer, prompt, length=length, encoder="t5", written=written)


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    sizes = zip(arguments["hidden_states"].shape[-3:], transformer.config.patch_size, strict=True)
    return Layout(tuple(size // patch for size, patch in sizes))


FAMILY = Family(
    name="wan",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), WanTransformer3DModel),
    denoiser=_denoiser,
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("t5", "text_encoder", _read),),
    layout=_layout,
    steering=VIDEO,
)
