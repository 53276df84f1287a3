"""Stable Diffusion UNets (``UNet2DConditionModel``): SD 1, SD 2, with img2img and inpainting.

Text is the key side of every ``attn2``. One call per step with batch [uncond, cond] under classifier-free guidance, else [cond].
"""

from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from attncontrol.families import Family
from attncontrol.sites import Site, Where


def _matches(pipe: Any) -> bool:
    """One tokenizer: SDXL's two encoders are another family."""
    unet, tokenizers = getattr(pipe, "unet", None), [getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2")]
    return isinstance(unet, UNet2DConditionModel) and tokenizers[0] is not None and tokenizers[1] is None


def _sites(unet: Any) -> tuple[Site, ...]:
    levels = len(unet.config["block_out_channels"])
    return tuple(
        Site(name, "cross" if module.is_cross_attention else "self", module.heads, _stride(name, levels))
        for name, module in unet.named_modules()
        if isinstance(module, Attention)
    )


def _stride(name: str, levels: int) -> int:
    """Level i works at stride 2^i, the middle block at the coarsest stride."""
    part, _, rest = name.partition(".")
    level = levels - 1 if part == "mid_block" else int(rest.partition(".")[0])
    return 2 ** (levels - 1 - level if part == "up_blocks" else level)


def _steering(sites: tuple[Site, ...]) -> tuple[Where, float]:
    """SD 1/2: the 16 x 16 layers at 512 px and step 20, as in the papers. UNets without them: the coarsest layers and step 2,
    measured on the bundled model (README).
    """
    if any(site.kind == "cross" and site.stride == 4 for site in sites):
        return Where(kind="cross", stride=4), 20.0
    return Where(kind="cross", stride=max(site.stride for site in sites)), 2.0


def _branches(pipe: Any) -> tuple[str, ...]:
    return ("uncond", "cond") if pipe.do_classifier_free_guidance else ("cond",)


FAMILY = Family(
    name="unet",
    matches=_matches,
    denoiser=lambda pipe: pipe.unet,
    sites=_sites,
    branches=_branches,
    tokenizer=lambda pipe: pipe.tokenizer,
    latent_channels=lambda pipe: pipe.unet.config.out_channels,
    steering=_steering,
)
