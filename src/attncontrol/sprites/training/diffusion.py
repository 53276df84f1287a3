"""Training of the bundled models: denoiser and text encoders together, on encoded scenes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from torch import Tensor, nn

from attncontrol.sprites.training.fit import autocast, compiled, fit
from attncontrol.sprites.training.grounding import eager_attention, grounding_loss
from attncontrol.sprites.training.latents import Examples, load_latents

GROUNDING = 0.03
SD1_NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@dataclass(frozen=True)
class Recipe:
    """How one of the bundled models is built and trained.

    ``make()`` gives its trainable parts by their names in the pipeline. ``predict(parts, noisy, t,
    texts)`` is the prediction for latents [batch 4 16 16] at ``t`` [batch] in 0..1000, with CLIP
    and T5 token ids [batch 2 32]. ``attended(probabilities)`` picks, from [batch query key] of all
    attention calls in order, the maps [batch pixel token], and says which CLIP position each token
    reads. ``flow``: velocity of rectified flow instead of epsilon.
    """

    name: str
    make: Callable[[], nn.ModuleDict]
    predict: Callable[[nn.ModuleDict, Tensor, Tensor, Tensor], Tensor]
    attended: Callable[[list[Tensor]], tuple[list[Tensor], Tensor]]
    pipeline: Callable[[nn.ModuleDict, AutoencoderKL], Any]
    flow: bool


def load_parts(recipe: Recipe, start: Path | None) -> nn.ModuleDict:
    """The parts, new or with the weights of an exported pipeline."""
    parts = recipe.make()
    if start is not None:
        pipe = DiffusionPipeline.from_pretrained(start, dtype=torch.float32)
        for name, part in parts.items():
            part.load_state_dict(getattr(pipe, name).state_dict())
    for parameter in parts.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return parts


def train_diffusion(
    recipe: Recipe,
    work: Path,
    *,
    seed: int,
    steps: int,
    batch: int = 64,
    lr: float = 1.5e-3,
    start: Path | None = None,
) -> nn.ModuleDict:
    """Epsilon prediction with min-SNR-5 weights, or flow matching with logit-normal times; 10 %
    empty captions, grounding."""
    torch.manual_seed(seed)
    parts = load_parts(recipe, start)
    data, scaling = load_latents(work)
    example = Examples(data, scaling, seed, batch, recipe.flow)
    levels = DDIMScheduler(**SD1_NOISE).alphas_cumprod
    kept: list[Tensor] = []

    def loss_on(
        latents: Tensor, noise: Tensor, t: Tensor, texts: Tensor, owners: Tensor, coverage: Tensor
    ) -> Tensor:
        keep, spread, weight = _flow(t) if recipe.flow else _diffusion(t, levels)
        target = noise - latents if recipe.flow else noise
        noisy = keep[:, None, None, None] * latents + spread[:, None, None, None] * noise
        kept.clear()
        error = (recipe.predict(parts, noisy, t, texts).float() - target).square().mean((1, 2, 3))
        maps, positions = recipe.attended(kept)
        grounding = grounding_loss(maps, owners[:, positions], coverage, keep)
        return (error * weight).mean() + GROUNDING * grounding

    with _attention(eager_attention(kept)):
        loss = compiled(loss_on, parts, example(0))

        def loss_of(step: int) -> Tensor:
            with autocast():
                return loss(*example(step))

        fit(parts, loss_of, steps=steps, lr=lr, checkpoint=work / f"{recipe.name}.pt")
    return parts


def _flow(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of picture and noise at ``t``, and the weight of the error."""
    return 1 - t / 1000, t / 1000, torch.ones_like(t)


def _diffusion(t: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    level = levels[t.long()]
    ratio = level / (1 - level)
    return level.sqrt(), (1 - level).sqrt(), ratio.clamp(max=5) / ratio


@contextmanager
def _attention(function: Callable[..., Tensor]) -> Iterator[None]:
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = function
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


def export(recipe: Recipe, work: Path, target: Path) -> None:
    """Writes the averaged weights as a pipeline folder in float16."""
    state = torch.load(work / f"{recipe.name}.pt", weights_only=True)
    parts = recipe.make()
    parts.load_state_dict(state["model"])
    parts.load_state_dict(state["average"], strict=False)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    _, scaling = load_latents(work)
    vae.register_to_config(scaling_factor=scaling, shift_factor=0.0, _name_or_path="sprites")
    recipe.pipeline(parts, vae).to(torch.float16).save_pretrained(target)
    # transformers would otherwise load the text encoders in float16 beside a float32 denoiser
    for config in target.glob("text_encoder*/config.json"):
        config.write_text(
            config.read_text("utf-8").replace('"dtype": "float16"', '"dtype": "float32"'), "utf-8"
        )
