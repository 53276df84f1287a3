"""Stable Diffusion 3 and 3.5 (``SD3Transformer2DModel``): joint attention over [picture, text].

Text is the sequence of CLIP (77 positions, CLIP-L and CLIP-G concatenated in channels) followed by
that of T5. ``attn2`` of SD 3.5 medium sees the picture alone. Skip-layer guidance is a second call
per step.
"""

from functools import partial
from typing import Any

from diffusers import SD3Transformer2DModel

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import (
    has_transformer,
    one_call,
    patch_grid,
    text_length,
    transformer_sites,
)
from attncontrol.prompts.tokens import Token, tokenize


def _sites(transformer: Any) -> tuple[Site, ...]:
    """``attn2`` has no projections of the text."""
    patch = transformer.config.patch_size
    return transformer_sites(
        transformer, lambda _, module: "joint" if module.added_kv_proj_dim else "self", patch
    )


def _clip(name: str, pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    tokenizer = pipe.tokenizer_2 if name == "clip_2" else pipe.tokenizer
    return tokenize(tokenizer, prompt, length=pipe.tokenizer_max_length, encoder=name)


def _t5(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    length = encoding["max_sequence_length"]
    return tokenize(pipe.tokenizer_3, prompt, length=length, encoder="t5")


def _blank(_: Any, __: str, encoding: Arguments) -> tuple[Token, ...]:
    """Zeros stand for T5."""
    length = encoding["max_sequence_length"]
    return tuple(Token(i, 0, "", 0, 0, special=True, encoder="t5") for i in range(length))


def _encoders(pipe: Any) -> tuple[Encoder, ...]:
    last = Encoder("t5", "text_encoder_3", _t5, "prompt_3")
    return (
        Encoder("clip", "text_encoder", partial(_clip, "clip")),
        Encoder("clip_2", "text_encoder_2", partial(_clip, "clip_2"), "prompt_2", beside=True),
        Encoder("t5", None, _blank) if pipe.text_encoder_3 is None else last,
    )


def _layout(transformer: Any, arguments: Arguments, site: Site) -> Layout:
    height, width = patch_grid(transformer, arguments)
    picture = height * width
    text = slice(picture, picture + text_length(arguments)) if site.kind == "joint" else slice(0)
    return Layout((height, width), slice(picture), text)


def _steering(sites: tuple[Site, ...]) -> tuple[Where, None]:
    """The layers 5 to 12 of Self-Cross guidance for SD3 medium with its 24 layers, whose step of 20
    goes with its own loss; of fewer layers the last third, which localises words best in the
    bundled model (``attncontrol sites --score``).
    """
    joint = [site.name for site in sites if site.kind == "joint"]
    middle = joint[5:13] if len(joint) > 12 else joint[2 * len(joint) // 3 :]
    return Where(kind="joint", layers=tuple(middle)), None


FAMILY = Family(
    name="sd3",
    matches=has_transformer(SD3Transformer2DModel),
    sites=_sites,
    branches=one_call,
    encoders=_encoders,
    layout=_layout,
    steering=_steering,
    further="words",
)
