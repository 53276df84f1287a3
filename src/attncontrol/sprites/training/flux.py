"""The bundled FLUX: double- and single-stream blocks over [T5, picture], rectified flow, no
distilled guidance."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from torch import Tensor, nn

from attncontrol.sprites.training.diffusion import Recipe
from attncontrol.sprites.training.text import (
    MAX_TOKENS,
    make_pooled_encoder,
    make_t5_encoder,
    make_t5_tokenizer,
    make_tokenizer,
    t5_positions,
)

SIDE = 8  # tokens of 2 x 2 latent cells
PICTURE = SIDE * SIDE
DOUBLE = 3  # double-stream blocks


def make() -> nn.ModuleDict:
    """Three double-stream and six single-stream blocks of width 128, four heads; CLIP of width 64,
    pooled; T5 of width 128."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=DOUBLE,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        pooled_projection_dim=64,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )
    encoders = {
        "text_encoder": make_pooled_encoder(make_tokenizer()),
        "text_encoder_2": make_t5_encoder(make_t5_tokenizer()),
    }
    return nn.ModuleDict({"transformer": transformer, **encoders})


def predict(parts: Any, noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:
    """Latents packed 2 x 2 to a token, as the pipeline does."""
    cells = torch.arange(SIDE, device=noisy.device)
    rows, columns = torch.meshgrid(cells, cells, indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float()
    packed = (
        noisy.unflatten(2, (SIDE, 2))
        .unflatten(4, (SIDE, 2))
        .permute(0, 2, 4, 1, 3, 5)
        .flatten(3)
        .flatten(1, 2)
    )
    out = parts["transformer"](
        packed,
        encoder_hidden_states=parts["text_encoder_2"](texts[:, 1])[0],
        pooled_projections=parts["text_encoder"](texts[:, 0]).pooler_output,
        timestep=t / 1000,
        img_ids=places,
        txt_ids=torch.zeros(MAX_TOKENS, 3, device=noisy.device),
        return_dict=False,
    )[0]
    unpacked: Tensor = (
        out.unflatten(1, (SIDE, SIDE))
        .unflatten(3, (4, 2, 2))
        .permute(0, 3, 1, 4, 2, 5)
        .flatten(4, 5)
        .flatten(2, 3)
    )
    return unpacked


def attended(probabilities: list[Tensor]) -> tuple[list[list[Tensor]], Tensor]:
    """Double- and single-stream blocks apart, so that neither can leave it to the other."""
    joint = [
        p[:, MAX_TOKENS:, :MAX_TOKENS] for p in probabilities if p.shape[1] == PICTURE + MAX_TOKENS
    ]
    return [joint[:DOUBLE], joint[DOUBLE:]], t5_positions(joint[0].device)


def pipeline(parts: nn.ModuleDict, vae: AutoencoderKL) -> FluxPipeline:
    text = (parts["text_encoder"], make_tokenizer(), parts["text_encoder_2"], make_t5_tokenizer())
    return FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae, *text, parts["transformer"])


RECIPE = Recipe("flux", make, predict, attended, pipeline, flow=True, lr=2e-3)
