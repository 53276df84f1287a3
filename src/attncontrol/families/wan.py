"""Wan 2.1 text to video (``WanTransformer3DModel``): self-attention, then cross-attention to UMT5;
two calls per step.

Recording only.
"""

from typing import Any

from diffusers import WanTransformer3DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import CallError, ModelError
from attncontrol.families.family import Arguments, Family
from attncontrol.families.parts import VIDEO, t5_tokens, transformer_sites, two_calls
from attncontrol.prompts.tokens import Token


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


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    """The pipeline cleans the prompt up; a prompt that this changes has other positions."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    if prompt_clean(prompt) != prompt:
        raise CallError(
            f"the pipeline reads {prompt!r} as {prompt_clean(prompt)!r}; pass it in this form"
        )
    return t5_tokens(pipe, prompt, encoding)


def _layout(transformer: Any, arguments: Arguments, _: Site) -> Layout:
    sizes = zip(arguments["hidden_states"].shape[-3:], transformer.config.patch_size, strict=True)
    return Layout(tuple(size // patch for size, patch in sizes))


FAMILY = Family(
    name="wan",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), WanTransformer3DModel),
    denoiser=_denoiser,
    sites=_sites,
    branches=two_calls,
    tokens=_tokens,
    layout=_layout,
    steering=VIDEO,
)
