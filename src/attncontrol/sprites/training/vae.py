"""The autoencoder of the bundled models: 128 px to 4 x 16 x 16 latents, trained on crops around
sprites."""

import functools
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from attncontrol.sprites.scenes import SIZE, render, sample
from attncontrol.sprites.training.fit import autocast, compiled, fit, to_tensor

CROP = 64
POSTERIOR_STD = 0.05  # of the standard deviation of the latents


def make_vae() -> AutoencoderKL:
    """128 px -> 4 x 16 x 16 latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(24, 48, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def _crops(rng: np.random.Generator, count: int) -> Tensor:
    crops: list[np.ndarray] = []
    while len(crops) < count:
        scene = sample(rng, failures=False)
        picture, _ = render(scene)
        for left, top, width, height in scene.boxes:
            x = int(np.clip(left + width // 2 - CROP // 2 + rng.integers(-24, 25), 0, SIZE - CROP))
            y = int(np.clip(top + height // 2 - CROP // 2 + rng.integers(-24, 25), 0, SIZE - CROP))
            crops.append(picture[y : y + CROP, x : x + CROP])
    return to_tensor(np.stack(crops[:count]))


def _vae_loss(vae: AutoencoderKL, pictures: Tensor, noise: Tensor) -> Tensor:
    """L1 and L2 of pixels, L1 of pixel differences. A learned posterior starts so wide that
    training stalls: it is fixed."""
    mean = vae.encode(pictures).latent_dist.mean
    drawn = vae.decode(mean + POSTERIOR_STD * mean.detach().std() * noise).sample.float()
    edges = sum((drawn.diff(dim=d) - pictures.diff(dim=d)).abs().mean() for d in (2, 3))
    return (
        F.l1_loss(drawn, pictures)
        + 2 * F.mse_loss(drawn, pictures)
        + 0.5 * edges
        + 1e-3 * mean.float().square().mean()
    )


def _fix_posterior(vae: AutoencoderKL) -> None:
    channels = vae.config.latent_channels
    with torch.no_grad():
        vae.quant_conv.weight[channels:] = 0
        vae.quant_conv.bias[channels:] = 2 * math.log(POSTERIOR_STD)


def _decoder_loss(vae: AutoencoderKL, latents: Tensor, pictures: Tensor) -> Tensor:
    """Huber losses of pixels, of pixel differences, for edges, and of means over 4 x 4 px, for
    colours."""
    drawn = vae.decode(latents).sample.float()
    huber = functools.partial(F.smooth_l1_loss, beta=0.05)
    edges = huber(drawn.diff(dim=2), pictures.diff(dim=2)) + huber(
        drawn.diff(dim=3), pictures.diff(dim=3)
    )
    return huber(drawn, pictures) + edges + huber(F.avg_pool2d(drawn, 4), F.avg_pool2d(pictures, 4))


def train_decoder(work: Path, *, seed: int, steps: int = 3000, batch: int = 16) -> AutoencoderKL:
    """Trains the decoder of ``work / "vae"`` on; the encoder stays, so encoded scenes and the UNet
    stay valid."""
    vae = AutoencoderKL.from_pretrained(work / "vae").to(memory_format=torch.channels_last)

    @torch.no_grad()
    def example(step: int) -> tuple[Tensor, Tensor]:
        pictures = _crops(np.random.default_rng((seed, 5, step)), batch).contiguous(
            memory_format=torch.channels_last
        )
        with autocast():
            mean = vae.encode(pictures).latent_dist.mean.float()
        noise = torch.randn(
            mean.shape, generator=torch.Generator().manual_seed(seed * 1_000_003 + step)
        )
        return mean + POSTERIOR_STD * mean.std() * noise, pictures

    loss = compiled(functools.partial(_decoder_loss, vae), vae.decoder, example(0))

    def loss_of(step: int) -> Tensor:
        latents, pictures = example(step)
        with autocast():
            return loss(latents, pictures)

    fit(vae.decoder, loss_of, steps=steps, lr=1e-3, checkpoint=work / "decoder.pt", decay=0.995)
    return vae


def train_vae(work: Path, *, seed: int, steps: int = 5000, batch: int = 16) -> AutoencoderKL:
    torch.manual_seed(seed)
    vae = make_vae().to(memory_format=torch.channels_last)

    def example(step: int) -> tuple[Tensor, Tensor]:
        pictures = _crops(np.random.default_rng((seed, 1, step)), batch).contiguous(
            memory_format=torch.channels_last
        )
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return pictures, torch.randn(batch, 4, CROP // 8, CROP // 8, generator=rng)

    loss = compiled(functools.partial(_vae_loss, vae), vae, example(0))

    def loss_of(step: int) -> Tensor:
        with autocast():
            return loss(*example(step))

    fit(vae, loss_of, steps=steps, lr=1.2e-3, checkpoint=work / "vae.pt")
    _fix_posterior(vae)
    return vae
