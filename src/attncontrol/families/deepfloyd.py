"""DeepFloyd IF (``UNet2DConditionModel`` with added keys): the picture attends to [T5, picture] in
one attention; pixels instead of latents, [uncond, cond] in one call per step. Padding is not
masked. Text has no queries. The network puts out a variance too."""

from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site
from attncontrol.families import unet
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import as_written, one_call, text_length
from attncontrol.prompts.tokens import Token, tokenize

LENGTH = 77


def adds_keys(pipe: Any, of: str) -> bool:
    """Whether the UNet adds the keys of the text to the picture's, in the way that ``of`` names."""
    denoiser = getattr(pipe, "unet", None)
    return (
        isinstance(denoiser, UNet2DConditionModel)
        and getattr(pipe, "tokenizer", None) is not None
        and any("SimpleCrossAttn" in block for block in denoiser.config["down_block_types"])
        and denoiser.config.get("encoder_hid_dim_type") == of
    )


def sites(denoiser: Any) -> tuple[Site, ...]:
    levels = len(denoiser.config["block_out_channels"])
    return tuple(
        Site(name, _kind(module), module.heads, unet.stride(name, levels))
        for name, module in denoiser.named_modules()
        if isinstance(module, Attention)
    )


def _kind(module: Any) -> Kind:
    if module.added_kv_proj_dim is None:
        return "self"
    return "cross" if module.only_cross_attention else "joint"


def layout(arguments: Arguments, site: Site, text: slice) -> Layout:
    """The picture is all queries, and among the keys the last ones."""
    height, width = site.grid(*arguments["sample"].shape[-2:])
    return Layout((height, width), slice(-height * width, None), text)


def latents(denoiser: Any, _: Arguments) -> tuple[slice, ...]:
    """Half of what the network puts out is variance; larger inputs have a picture behind."""
    return slice(None), slice(denoiser.config.out_channels // 2)


def _read(pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    written = as_written(pipe, pipe.tokenizer, prompt, encoding)
    return tokenize(pipe.tokenizer, prompt, length=LENGTH, encoder="t5", written=written)


FAMILY = Family(
    name="deepfloyd",
    matches=lambda pipe: adds_keys(pipe, "text_proj"),
    denoiser=lambda pipe: pipe.unet,
    sites=sites,
    branches=one_call,
    encoders=lambda _: (Encoder("t5", "text_encoder", _read),),
    layout=lambda _, arguments, site: layout(arguments, site, slice(text_length(arguments))),
    sample="sample",
    latents=latents,
    encode="it makes pixels, with noise in every step, and no autoencoder tells its latents",
)
