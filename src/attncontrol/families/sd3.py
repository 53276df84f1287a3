"""Stable Diffusion 3 and 3.5 (``SD3Transformer2DModel``): joint attention over [picture, text].

Text is the sequence of CLIP (77 positions, CLIP-L and CLIP-G concatenated in channels) followed by
that of T5. ``attn2`` of SD 3.5 medium sees the picture alone. Skip-layer guidance is a second call
per step.
"""

from typing import Any

from diffusers import SD3Transformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.families.family import Arguments, Family
from attncontrol.families.parts import one_call, patch_grid, text_length, transformer_sites
from attncontrol.prompts.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    """``attn2`` has no projections of the text."""
    patch = transformer.config.patch_size
    return transformer_sites(
        transformer, lambda _, module: "joint" if module.added_kv_proj_dim else "self", patch
    )


def _tokens(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    clip = tokenize(pipe.tokenizer, prompt, length=pipe.tokenizer_max_length, encoder="clip")
    rest = encoding["max_sequence_length"]
    if pipe.tokenizer_3 is None:  # zeros stand for T5
        blank = tuple(
            Token(len(clip) + i, 0, "", 0, 0, special=True, encoder="t5") for i in range(rest)
        )
        return clip + blank
    return clip + tokenize(pipe.tokenizer_3, prompt, length=rest, offset=len(clip), encoder="t5")


def _layout(transformer: Any, arguments: Arguments, site: Site) -> Layout:
    height, width = patch_grid(transformer, arguments)
    picture = height * width
    text = slice(picture, picture + text_length(arguments)) if site.kind == "joint" else slice(0)
    return Layout((height, width), slice(picture), text)


def _steering(sites: tuple[Site, ...]) -> tuple[Where, float]:
    """The layers 5 to 12 and step 20 of Self-Cross guidance for SD3 medium with its 24 layers; of
    fewer layers the last third, which localises words best in the bundled model (``attncontrol
    sites --score``), and the step measured there.
    """
    joint = [site.name for site in sites if site.kind == "joint"]
    if len(joint) > 12:
        return Where(kind="joint", layers=tuple(joint[5:13])), 20.0
    return Where(kind="joint", layers=tuple(joint[2 * len(joint) // 3 :])), 8.0


FAMILY = Family(
    name="sd3",
    matches=lambda pipe: isinstance(getattr(pipe, "transformer", None), SD3Transformer2DModel),
    denoiser=lambda pipe: pipe.transformer,
    sites=_sites,
    branches=one_call,
    tokens=_tokens,
    layout=_layout,
    steering=_steering,
)
