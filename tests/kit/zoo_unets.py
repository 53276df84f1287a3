"""Tiny UNet pipelines whose picture is not all of what they denoise, or not made by one denoiser:
random weights, seeded, real classes."""

import torch
from diffusers import (
    AutoencoderTiny,
    DreamLiteMobilePipeline,
    DreamLitePipeline,
    DreamLiteUNetModel,
    StableCascadePriorPipeline,
    StableCascadeUNet,
)
from diffusers.schedulers import DDPMWuerstchenScheduler
from transformers import Qwen3VLForConditionalGeneration

from attncontrol.attention.sites import Where
from attncontrol.sprites.training.text import make_tokenizer
from tests.kit.zoo import clip, finish
from tests.kit.zoo_chat import MARKS, picture_tokenizer
from tests.kit.zoo_newer import ChatProcessor, Known, flow, photo, qwen3_vl


def dreamlite(cls=DreamLitePipeline):
    """Attention at strides 2 and 4, of which the latter has two heads that share one key."""
    torch.manual_seed(0)
    tokenizer = picture_tokenizer()
    blocks = "DreamLiteCrossAttnNoSelfAttn", "DreamLiteCrossAttn"
    unet = DreamLiteUNetModel(
        block_out_channels=(16, 16, 32), layers_per_block=1, sample_size=16, norm_num_groups=8,
        down_block_types=("DreamLiteDownBlock2D", *(f"{name}DownBlock2D" for name in blocks)),
        up_block_types=(*(f"{name}UpBlock2D" for name in blocks[::-1]), "DreamLiteUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=16, use_linear_projection=True, ff_mult=2,
        addition_embed_type="time", addition_time_embed_dim=8, encoder_hid_dim=16,
        encoder_hid_dim_type="text_proj_rms", projection_class_embeddings_input_dim=16,
    )  # fmt: skip
    language = qwen3_vl(tokenizer, Qwen3VLForConditionalGeneration)
    language.config.image_token_id = tokenizer.convert_tokens_to_ids(MARKS[1])
    codes = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    )  # fmt: skip
    pipe = cls(language, tokenizer, ChatProcessor(tokenizer), codes, unet, flow())
    for mode in ("generate", "edit"):
        before = getattr(pipe, f"prompt_template_encode_{mode}").partition("{}")[0]
        dropped = len(tokenizer(before.partition(MARKS[0])[0]).input_ids)
        setattr(pipe, f"prompt_template_encode_{mode}_start_idx", dropped)
    return finish(pipe, ("to_q",))


def dreamlite_mobile():
    return dreamlite(DreamLiteMobilePipeline)


def cascade():
    """The prior, with two levels of one stride, as its own."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    prior = StableCascadeUNet(
        in_channels=4, out_channels=4, conditioning_dim=16, block_out_channels=(16, 16),
        num_attention_heads=(2, 2), down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1), clip_text_in_channels=32, clip_image_in_channels=8,
        clip_text_pooled_in_channels=32, switch_level=(False,), timestep_ratio_embedding_dim=8,
    )  # fmt: skip
    pipe = StableCascadePriorPipeline(
        tokenizer, clip(tokenizer), prior, DDPMWuerstchenScheduler(), resolution_multiple=16
    )
    return finish(pipe, ("to_q",))


def _dropped(mode):
    return lambda pipe: getattr(pipe, f"prompt_template_encode_{mode}_start_idx")


HALVES = {
    "calls": 1, "prompts": 1, "picture": lambda _, __: 0, "line": 2, "tolerance": 1e-5,
    "where": Where("cross", stride=2),
}  # fmt: skip
UNETS = {
    "cascade": Known(
        cascade, {"output_type": "pt"}, calls=1, cond=0, picture=lambda _, __: 0,
        text=lambda cells, _: cells, tolerance=1e-5,
    ),
    "dreamlite": Known(dreamlite, {}, dropped=_dropped("generate"), **HALVES),
    "dreamlite-edit": Known(
        dreamlite, {"image": photo(96, 64, 0)}, dropped=_dropped("edit"), **HALVES
    ),
    "dreamlite-mobile": Known(
        dreamlite_mobile, {"guidance_scale": None}, cond=None, dropped=_dropped("generate"),
        **HALVES,
    ),
}  # fmt: skip
