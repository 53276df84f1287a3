"""The bundled Stable Diffusion 3: joint attention over [picture, CLIP, T5], rectified flow."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn

from attncontrol.sprites.training.diffusion import Recipe
from attncontrol.sprites.training.text import (
    MAX_TOKENS,
    make_projected_encoder,
    make_t5_encoder,
    make_t5_tokenizer,
    make_tokenizer,
    t5_positions,
)

PICTURE = 64  # tokens: 8 x 8 patches of 2 x 2 latent cells


def make() -> nn.ModuleDict:
    """Six blocks of width 128, four heads, normalised queries and keys; two CLIP encoders of width
    64, T5 of width 128."""
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        caption_projection_dim=128,
        pooled_projection_dim=128,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    tokenizer = make_tokenizer()
    encoders = {
        name: make_projected_encoder(tokenizer) for name in ("text_encoder", "text_encoder_2")
    }
    return nn.ModuleDict(
        {
            "transformer": transformer,
            **encoders,
            "text_encoder_3": make_t5_encoder(make_t5_tokenizer()),
        }
    )


def predict(parts: Any, noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:
    """Text as the pipeline makes it: last but one layer of both CLIP encoders side by side, then
    T5; pooled from CLIP."""
    clip = [
        parts[name](texts[:, 0], output_hidden_states=True)
        for name in ("text_encoder", "text_encoder_2")
    ]
    states = torch.cat([out.hidden_states[-2] for out in clip], -1)
    states = torch.cat([states, parts["text_encoder_3"](texts[:, 1])[0]], 1)
    pooled = torch.cat([out.text_embeds for out in clip], -1)
    out: Tensor = parts["transformer"](noisy, states, pooled, t, return_dict=False)[0]
    return out


def attended(probabilities: list[Tensor]) -> tuple[list[list[Tensor]], Tensor]:
    joint = [
        p[:, :PICTURE, PICTURE:] for p in probabilities if p.shape[1] == PICTURE + 2 * MAX_TOKENS
    ]
    device = joint[0].device
    return [joint], torch.cat([torch.arange(MAX_TOKENS, device=device), t5_positions(device)])


def pipeline(parts: nn.ModuleDict, vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    tokenizer = make_tokenizer()
    text = (
        parts["text_encoder"],
        tokenizer,
        parts["text_encoder_2"],
        tokenizer,
        parts["text_encoder_3"],
        make_t5_tokenizer(),
    )
    return StableDiffusion3Pipeline(
        parts["transformer"], FlowMatchEulerDiscreteScheduler(), vae, *text
    )


RECIPE = Recipe("sd3", make, predict, attended, pipeline, flow=True, lr=2e-3)
