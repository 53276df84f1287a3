"""The bundled Stable Diffusion: 4.3 M parameters, cross-attention at 16 x 16 and 8 x 8."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from attncontrol.sprites.training.diffusion import SD1_NOISE, Recipe
from attncontrol.sprites.training.text import MAX_TOKENS, make_text_encoder, make_tokenizer


def make() -> nn.ModuleDict:
    """Self- and cross-attention in every block, heads of width 32."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=(2, 4),  # diffusers: the number of heads
        norm_num_groups=16,
    )
    return nn.ModuleDict({"unet": unet, "text_encoder": make_text_encoder(make_tokenizer())})


def predict(parts: Any, noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:
    out: Tensor = parts["unet"](
        noisy, t, parts["text_encoder"](texts[:, 0]).last_hidden_state
    ).sample
    return out


def attended(probabilities: list[Tensor]) -> tuple[list[list[Tensor]], Tensor]:
    """The cross-attention: text keys, more queries than text."""
    cross = [p for p in probabilities if p.shape[2] == MAX_TOKENS != p.shape[1]]
    return [cross], torch.arange(MAX_TOKENS, device=cross[0].device)


def pipeline(parts: nn.ModuleDict, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """With the noise schedule of Stable Diffusion 1."""
    scheduler = DDIMScheduler(
        **SD1_NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    models = vae, parts["text_encoder"], make_tokenizer(), parts["unet"], scheduler
    return StableDiffusionPipeline(*models, None, None, requires_safety_checker=False)


RECIPE = Recipe("sd", make, predict, attended, pipeline, flow=False, lr=1.5e-3)
