"""Tiny pipelines with random weights, seeded."""

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from attncontrol.sprites.training.text import make_tokenizer


def tiny_text_encoder(tokenizer, width=32):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=37, projection_dim=width,
        num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config)


def tiny_unet(seed=0, *, in_channels=4, sample_size=16, scale=3.0):
    """Three levels (strides 1, 2, 4); larger query weights make the attention peaked."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32, 32), layers_per_block=1, sample_size=sample_size,
        in_channels=in_channels, out_channels=4, down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3, cross_attention_dim=32,
        attention_head_dim=(2, 4, 4), norm_num_groups=8,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn2.to_q" in name:
                parameter.mul_(scale * 4)
    return unet


def tiny_vae(seed=0):
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), in_channels=3, out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4, norm_num_groups=4, layers_per_block=1,
    )  # fmt: skip


def tiny_components(seed=0):
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    return {
        "unet": tiny_unet(seed),
        "vae": tiny_vae(seed),
        "text_encoder": tiny_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
        ),
        "safety_checker": None,
        "feature_extractor": None,
    }


def tiny_sd(seed=0, dtype=torch.float64, cls=StableDiffusionPipeline, **components):
    pipe = cls(**(tiny_components(seed) | components), requires_safety_checker=False).to(dtype)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_controlnet(base):
    """The parts of a Stable Diffusion pipeline beside a ControlNet that says something."""
    torch.manual_seed(1)
    control = ControlNetModel.from_unet(
        base.unet, conditioning_embedding_out_channels=(8, 8, 8, 8)
    ).double()
    for parameter in control.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # a new ControlNet is silent
    pipe = StableDiffusionControlNetPipeline(
        **base.components, controlnet=control, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
