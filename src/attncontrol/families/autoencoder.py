"""Clean latents of pictures, as a pipeline undoes them before its autoencoder decodes.

Each takes pictures [batch 3 height width] in [-1, 1]; an autoencoder of videos takes and returns a
frame axis after the channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from attncontrol.errors import ModelError

_SIDES = "vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio"
_FRAMES = "vae_scale_factor_temporal", "vae_temporal_compression_ratio"


def cell_side(pipe: Any) -> int:
    """Pixels of a side of a cell of the latents. Raises ModelError if the pipeline does not say."""
    if (known := next((name for name in _SIDES if hasattr(pipe, name)), None)) is None:
        raise ModelError(
            f"{type(pipe).__name__} has none of {', '.join(_SIDES)}: how many pixels a cell of its "
            "latents has is not known"
        )
    return int(getattr(pipe, known))


def cell_frames(pipe: Any) -> int:
    """Frames of a video in one of its latents, all but the first; 1 of pictures."""
    return int(next((getattr(pipe, name) for name in _FRAMES if hasattr(pipe, name)), 1))


def encoded(pipe: Any, pictures: Tensor) -> Tensor:
    """z in float32 at least: the mean where the autoencoder makes a distribution."""
    vae = pipe.vae
    with _wide_enough(vae):
        made = vae.encode(pictures.to(vae.device, vae.dtype))
    latents: Tensor = made.latent_dist.mean if hasattr(made, "latent_dist") else made[0]
    return latents if latents.dtype == torch.float64 else latents.float()


@contextmanager
def _wide_enough(vae: Any) -> Iterator[None]:
    """In float32 where the autoencoder says that it overflows in half precision, like SDXL's, as
    pipelines do when they decode."""
    if vae.dtype != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(torch.float16)


def shifted(pipe: Any, pictures: Tensor) -> Tensor:
    """(z - shift) scale; either may be missing."""
    config = pipe.vae.config
    shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    return (encoded(pipe, pictures) - shift) * scale


def scaled(pipe: Any, pictures: Tensor) -> Tensor:
    """z scale, of pipelines that leave out a shift which their autoencoder may have."""
    scale: float = pipe.vae.config.scaling_factor
    return encoded(pipe, pictures) * scale


def standardised(pipe: Any, pictures: Tensor) -> Tensor:
    """(z - mean) / deviation of every channel."""
    latents, config = encoded(pipe, pictures), pipe.vae.config
    mean, deviation = (
        torch.tensor(of).view(-1, *[1] * (latents.ndim - 2)).to(latents)
        for of in (config.latents_mean, config.latents_std)
    )
    return (latents - mean) / deviation


def whitened(pipe: Any, tokens: Tensor, epsilon: float) -> Tensor:
    """The same for tokens [... channel] of z, by the batch norm of an autoencoder of FLUX.2."""
    norm = pipe.vae.bn
    mean, variance = norm.running_mean.to(tokens), norm.running_var.to(tokens)
    return (tokens - mean) / (variance + epsilon).sqrt()
