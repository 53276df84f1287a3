"""Kandinsky 3 (``Kandinsky3UNet``): blocks of a UNet that attend to the picture first or last and
to T5 in between; [uncond, cond] in one call per step.

All attention has one name: the first of a block is that of the picture. Padding is masked, and cut
off after the longest text of a batch. The pooling of the text is no site.
"""

from typing import Any

from diffusers import Kandinsky3UNet

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Kind, Site, Where
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import one_call
from attncontrol.prompts.tokens import Token, tokenize

LENGTH = 128


def _sites(unet: Any) -> tuple[Site, ...]:
    """Such as ``up_blocks.1.attentions.2.attention``."""
    levels = len(unet.config.block_out_channels)
    sites = []
    for name, module in unet.named_modules():
        if not (name.endswith(".attention") and ".attentions." in name):
            continue
        part, block, _, nth, _ = name.split(".")
        level = int(block) if part == "down_blocks" else levels - 1 - int(block)
        kind: Kind = "self" if nth == "0" else "cross"
        sites.append(Site(name, kind, module.heads, 2**level))
    return tuple(sites)


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=LENGTH, padding=False, encoder="t5")


def _layout(_: Any, arguments: Arguments, site: Site) -> Layout:
    return Layout(site.grid(*arguments["sample"].shape[-2:]))


def _steering(sites: tuple[Site, ...]) -> tuple[Where, None]:
    """The stride of the 16 x 16 layers of other UNets."""
    strides = {site.stride for site in sites if site.kind == "cross"}
    return Where(kind="cross", stride=4 if 4 in strides else max(strides)), None


FAMILY = Family(
    name="kandinsky3",
    matches=lambda pipe: isinstance(getattr(pipe, "unet", None), Kandinsky3UNet),
    denoiser=lambda pipe: pipe.unet,
    sites=_sites,
    branches=one_call,
    encoders=lambda _: (Encoder("t5", "text_encoder", _read),),
    layout=_layout,
    steering=_steering,
    sample="sample",
    encode="its autoencoder, of quantised latents, is not described",
)
