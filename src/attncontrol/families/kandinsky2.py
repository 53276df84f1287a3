"""Kandinsky 2.1 (``UNet2DConditionModel`` with added keys): the picture attends to [features of a
picture, M-CLIP, picture] in one attention, [uncond, cond] in one call per step. Padding is not
masked. Text has no queries. The combined pipeline runs a prior and this one, which is what to give;
the picture of Kandinsky 2.2 reads no text."""

from typing import Any

from attncontrol.attention.call import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import ModelError
from attncontrol.families import deepfloyd, kandinsky3
from attncontrol.families.encoder import Arguments, Encoder
from attncontrol.families.family import Family
from attncontrol.families.parts import one_call, text_length
from attncontrol.prompts.tokens import Token, tokenize


def _read(pipe: Any, prompt: str, _: Arguments) -> tuple[Token, ...]:
    return tokenize(pipe.tokenizer, prompt, length=deepfloyd.LENGTH, encoder="clip")


def _layout(unet: Any, arguments: Arguments, site: Site) -> Layout:
    before = unet.encoder_hid_proj.num_image_text_embeds
    text = slice(before, before + text_length(arguments))
    return deepfloyd.layout(arguments, site, text)


def _matches(pipe: Any) -> bool:
    if all(hasattr(pipe, name) for name in ("unet", "decoder_pipe", "prior_pipe")):
        raise ModelError(
            f"{type(pipe).__name__} runs two pipelines: give pipe.decoder_pipe, and call it with "
            "the image_embeds that pipe.prior_pipe makes (Kandinsky 2.1; the picture of 2.2 reads "
            "no text)"
        )
    return deepfloyd.adds_keys(pipe, "text_image_proj")


FAMILY = Family(
    name="kandinsky2",
    matches=_matches,
    denoiser=lambda pipe: pipe.unet,
    sites=deepfloyd.sites,
    branches=one_call,
    encoders=lambda _: (Encoder("clip", "text_encoder", _read),),
    layout=_layout,
    sample="sample",
    latents=deepfloyd.latents,
    encode=kandinsky3.FAMILY.encode,
)
