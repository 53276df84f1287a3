"""The bundled PixArt: self-attention, then cross-attention to T5, in every block; epsilon
prediction."""

from typing import Any

from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from torch import Tensor, nn

from attncontrol.sprites.training.diffusion import SD1_NOISE, Recipe
from attncontrol.sprites.training.text import (
    MAX_TOKENS,
    make_t5_encoder,
    make_t5_tokenizer,
    t5_positions,
)

PICTURE = 64  # tokens: 8 x 8 patches of 2 x 2 latent cells


def make() -> nn.ModuleDict:
    """Twelve blocks of width 128, four heads; T5 of width 128."""
    transformer = PixArtTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=12,
        attention_head_dim=32,
        num_attention_heads=4,
        cross_attention_dim=128,
        caption_channels=128,
        use_additional_conditions=False,
    )
    encoder = make_t5_encoder(make_t5_tokenizer())
    return nn.ModuleDict({"transformer": transformer, "text_encoder": encoder})


def predict(parts: Any, noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:
    """Padding is hidden, from T5 and from the picture, as the pipeline does."""
    ids = texts[:, 1]
    mask = (ids != 0).long()
    out: Tensor = parts["transformer"](
        noisy,
        encoder_hidden_states=parts["text_encoder"](ids, attention_mask=mask)[0],
        encoder_attention_mask=mask,
        timestep=t,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return out


def attended(probabilities: list[Tensor]) -> tuple[list[list[Tensor]], Tensor]:
    cross = [p for p in probabilities if p.shape[1:] == (PICTURE, MAX_TOKENS)]
    return [cross], t5_positions(cross[0].device)


def pipeline(parts: nn.ModuleDict, vae: AutoencoderKL) -> PixArtSigmaPipeline:
    """With the noise schedule of Stable Diffusion 1. To be called with ``clean_caption`` and
    ``use_resolution_binning`` off."""
    text = make_t5_tokenizer(), parts["text_encoder"]
    scheduler = DPMSolverMultistepScheduler(**SD1_NOISE)
    return PixArtSigmaPipeline(*text, vae, parts["transformer"], scheduler)


RECIPE = Recipe("pixart", make, predict, attended, pipeline, flow=False, lr=3e-3)
