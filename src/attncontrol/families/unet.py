"""Stable Diffusion UNets (``UNet2DConditionModel``): SD 1, SDXL, with img2img and inpainting; SD 2
is ``sd2``.

Text is the key side of every ``attn2``. One call per step with batch [uncond, cond] under
classifier-free guidance, else [cond]; InstructPix2Pix, whose UNet reads a picture in further
channels, has [cond, reference, uncond], of which the last two read the negative prompt, and the
last an empty picture. The two encoders of SDXL share one vocabulary, and their
features are concatenated: a position is one token of both. Those whose text and picture are keys
of one attention are ``deepfloyd`` and ``kandinsky2``.
"""

from functools import partial
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site, Where
from attncontrol.errors import CallError
from attncontrol.families.autoencoder import scaled, standardised
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import as_written, one_call
from attncontrol.prompts.tokens import Token, tokenize


def _tokenizer(pipe: Any) -> Any:
    """The refiner of SDXL has only the second one."""
    return getattr(pipe, "tokenizer", None) or getattr(pipe, "tokenizer_2", None)


def _matches(pipe: Any) -> bool:
    unet = getattr(pipe, "unet", None)
    if not isinstance(unet, UNet2DConditionModel) or _tokenizer(pipe) is None:
        return False
    if type(unet).__name__ == "DreamLiteUNetModel":  # which older versions of diffusers do not have
        return False
    return not any("SimpleCrossAttn" in block for block in unet.config["down_block_types"])


def _sites(unet: Any) -> tuple[Site, ...]:
    """Without those of GLIGEN among cells and boxes, which are of no kind."""
    levels = len(unet.config["block_out_channels"])
    return tuple(
        Site(
            name,
            "cross" if module.is_cross_attention else "self",
            module.heads,
            stride(name, levels),
        )
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and not name.endswith(".fuser.attn")
    )


def stride(name: str, levels: int) -> int:
    """Of a module. Level i works at stride 2^i, the middle block at the coarsest stride."""
    part, _, rest = name.partition(".")
    level = levels - 1 if part == "mid_block" else int(rest.partition(".")[0])
    return 2 ** (levels - 1 - level if part == "up_blocks" else level)


_LOCALISING = ("up_blocks.0.attentions.1", "up_blocks.1.attentions.0")


def _steering(sites: tuple[Site, ...]) -> tuple[Where, float | None]:
    """SD 1 and 2, which look at text at strides 1 to 8: the 16 x 16 layers at 512 px and step 20,
    as in the papers. SDXL, for which there is no paper's step, the layers of the same stride.
    Smaller UNets the two that localise words best in the bundled model (``attncontrol sites
    --score``), or the coarsest where these do not exist.
    """
    cross = [site for site in sites if site.kind == "cross"]
    strides = {site.stride for site in cross}
    if 4 in strides:
        return Where(kind="cross", stride=4), 20.0 if 1 in strides else None
    if any(site.name.startswith(_LOCALISING) for site in cross):
        return Where(kind="cross", layers=_LOCALISING), None
    return Where(kind="cross", stride=max(strides)), None


def _branches(pipe: Any, nth: int, parts: int | None) -> tuple[str, ...]:
    """Raises CallError where a pipeline does not say whether it is guided."""
    if not hasattr(pipe, "prepare_image_latents"):  # of InstructPix2Pix
        return one_call(pipe, nth, parts)
    if parts is None and not hasattr(pipe, "do_classifier_free_guidance"):
        raise CallError(
            f"{type(pipe).__name__} without a prompt does not say whether it is guided: its rows "
            "are not known; call it with prompt=... instead of prompt_embeds"
        )
    guided = pipe.do_classifier_free_guidance if parts is None else parts == len(_THREE)
    return _THREE if guided else ("cond",)


_THREE = ("cond", "reference", "uncond")


def _encoders(pipe: Any) -> tuple[Encoder, ...]:
    ends = [end for end in ("", "_2") if getattr(pipe, f"tokenizer{end}", None) is not None]
    return tuple(
        Encoder(
            f"text{end}", f"text_encoder{end}", partial(_read, end), f"prompt{nth}",
            beside=nth == "_2",
        )
        for end, nth in zip(ends, ("", "_2"), strict=False)
    )  # fmt: skip


def _read(end: str, pipe: Any, prompt: str, encoding: Arguments) -> tuple[Token, ...]:
    tokenizer = getattr(pipe, f"tokenizer{end}")
    written = as_written(pipe, tokenizer, prompt, encoding)
    return tokenize(tokenizer, prompt, encoder=f"text{end}", written=written)


def _layout(_: Any, arguments: Arguments, site: Site) -> Layout:
    return Layout(site.grid(*arguments["sample"].shape[-2:]))


def _encode(pipe: Any, pictures: Tensor) -> Tensor:
    """Some SDXL have statistics of every channel beside the factor."""
    if pipe.vae.config.get("latents_mean") is None:
        return scaled(pipe, pictures)
    factor: float = pipe.vae.config.scaling_factor
    return standardised(pipe, pictures) * factor


FAMILY = Family(
    name="unet",
    matches=_matches,
    denoiser=lambda pipe: pipe.unet,
    sites=_sites,
    branches=_branches,
    encoders=_encoders,
    layout=_layout,
    steering=_steering,
    encode=_encode,
    contrast=slice(1, -1),
    sample="sample",
    latents=lambda unet, _: (
        slice(None),
        slice(0, unet.config.out_channels),
    ),  # not the mask of inpainting, nor the picture of InstructPix2Pix
    further="whole",
)
