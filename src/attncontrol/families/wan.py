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
from attncontrol.families.parts import VIDEO, cross_sites, two_calls, video_grid
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
    return cross_sites(transformer)


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    length, text = encoding["max_sequence_length"], prompt_clean(prompt)
    written = text, aligned(prompt, text)
    return tokenize(pipe.tokenizer, prompt, length=length, encoder="t5", written=written)


FAMILY = Family(
    name="wan",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), WanTransformer3DModel),
    denoiser=_denoiser,
    sites=_sites,
    branches=two_calls,
    encoders=lambda _: (Encoder("t5", "text_encoder", _read),),
    layout=lambda transformer, arguments, _: Layout(video_grid(transformer, arguments)),
    steering=VIDEO,
)
