"""Stable Cascade (``StableCascadeUNet``), whose prior makes the composition: the picture attends to
[picture, CLIP, features of the whole text, features of pictures] in one attention, [cond, uncond]
in one call per step. Text has no queries. Padding is not masked.

What the prior makes is no picture; a second pipeline, which knows the text by the features of the
whole, makes that. The combined pipeline runs both.
"""

from typing import Any

from diffusers import StableCascadeUNet

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import one_call
from attncontrol.prompts.tokens import Token, tokenize


def _matches(pipe: Any) -> bool:
    if isinstance(getattr(getattr(pipe, "prior_pipe", None), "prior", None), StableCascadeUNet):
        raise ModelError(
            f"{type(pipe).__name__} runs two pipelines: give pipe.prior_pipe, which reads the "
            "words and makes the composition, and call either of them in the block"
        )
    return isinstance(getattr(pipe, "prior", None), StableCascadeUNet)


def _sites(prior: Any) -> tuple[Site, ...]:
    """Blocks may look at the text alone."""
    blocks = {name: block for name, block in prior.named_modules() if hasattr(block, "kv_mapper")}
    return tuple(
        Site(
            f"{name}.attention",
            "joint" if block.self_attn else "cross",
            block.attention.heads,
            _stride(prior.config, name),
        )
        for name, block in blocks.items()
    )


def _stride(config: Any, name: str) -> int:
    """Of a block: levels are halved by strided convolutions, or where ``switch_level`` says so."""
    part, number, *_ = name.split(".")
    levels = len(config.block_out_channels)
    level = int(number) if part == "down_blocks" else levels - 1 - int(number)
    halved = (config.switch_level or (True,) * (levels - 1))[:level]
    stride: int = config.patch_size * 2 ** sum(halved)
    return stride


def _layout(_: Any, arguments: Arguments, site: Site) -> Layout:
    """Every halving rounds down."""
    height, width = (size // site.stride for size in arguments["sample"].shape[-2:])
    cells, length = height * width, arguments["clip_text"].shape[1]
    first = cells if site.kind == "joint" else 0
    return Layout((height, width), slice(cells), slice(first, first + length))


def _branches(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    return one_call(pipe, nth, parts)[::-1]


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt)


FAMILY = Family(
    name="cascade",
    matches=_matches,
    denoiser=lambda pipe: pipe.prior,
    sites=_sites,
    branches=_branches,
    encoders=lambda _: (Encoder("text", "text_encoder", _read),),
    layout=_layout,
    sample="sample",
    time="timestep_ratio",
    encode="the prior makes features of a picture, which no autoencoder of its own makes of one",
)
