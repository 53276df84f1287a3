"""Losses of the bundled models, denoiser and text encoders together; the training of the UNet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from torch import Tensor, nn

from attncontrol.errors import ModelError
from attncontrol.sprites.training.fit import autocast, compiled, fit
from attncontrol.sprites.training.grounding import attention, eager_attention, grounding_loss
from attncontrol.sprites.training.latents import Examples, load_latents, no_text

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
    attention calls in order, the maps [batch pixel token] in groups that are grounded apart, and
    says which CLIP position each token reads. ``flow``: velocity of rectified flow instead of
    epsilon. ``lr`` is the peak rate, of AdamW for the UNet and of Muon for the transformers.
    """

    name: str
    make: Callable[[], nn.ModuleDict]
    predict: Callable[[nn.ModuleDict, Tensor, Tensor, Tensor], Tensor]
    attended: Callable[[list[Tensor]], tuple[list[list[Tensor]], Tensor]]
    pipeline: Callable[[nn.ModuleDict, AutoencoderKL], Any]
    flow: bool
    lr: float


def load_parts(recipe: Recipe, start: Path | None) -> nn.ModuleDict:
    """The parts, new or with the weights of an exported pipeline: of its component of the same name
    and class, or the first of the same class. Raises ModelError if it has none of them."""
    parts = recipe.make()
    if start is None:
        return parts
    pipe = DiffusionPipeline.from_pretrained(start, dtype=torch.float32)
    taken = 0
    for name, part in parts.items():
        candidates = [pipe.components.get(name), *pipe.components.values()]
        source = next((each for each in candidates if type(each) is type(part)), None)
        if source is not None:
            part.load_state_dict(source.state_dict())
            taken += 1
    if not taken:
        raise ModelError(
            f"{start} has no part of {recipe.name}, which has {', '.join(parts)}; start from a "
            f"pipeline with a text encoder or a denoiser of the same class"
        )
    return parts


@dataclass(frozen=True)
class Terms:
    """Error and grounding loss of a batch of ``Examples``, on the device of its parts.

    Epsilon prediction with min-SNR-5 weights, or flow matching. ``kept`` is where the attention
    calls of ``recipe.predict`` leave their probabilities.
    """

    recipe: Recipe
    parts: nn.ModuleDict
    levels: Tensor
    kept: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Recipe, parts: nn.ModuleDict) -> "Terms":
        device = next(parts.parameters()).device
        return cls(recipe, parts, DDIMScheduler(**SD1_NOISE).alphas_cumprod.to(device))

    def shares(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shares of picture and noise at ``t``, and the weight of the error, each [batch]."""
        if self.recipe.flow:
            return 1 - t / 1000, t / 1000, torch.ones_like(t)
        level = self.levels[t.long()]
        ratio = level / (1 - level)
        return level.sqrt(), (1 - level).sqrt(), ratio.clamp(max=5) / ratio

    def __call__(
        self,
        latents: Tensor,
        noise: Tensor,
        t: Tensor,
        texts: Tensor,
        owners: Tensor,
        coverage: Tensor,
    ) -> tuple[Tensor, Tensor]:
        keep, spread, weight = self.shares(t)
        target = noise - latents if self.recipe.flow else noise
        noisy = keep[:, None, None, None] * latents + spread[:, None, None, None] * noise
        self.kept.clear()
        predicted = self.recipe.predict(self.parts, noisy, t, texts).float()
        groups, positions = self.recipe.attended(self.kept)
        self.kept.clear()
        error = ((predicted - target).square().mean((1, 2, 3)) * weight).mean()
        grounding = [grounding_loss(maps, owners[:, positions], coverage, keep) for maps in groups]
        return error, torch.stack(grounding).mean()


def train_diffusion(
    recipe: Recipe,
    work: Path,
    *,
    seed: int,
    steps: int = 6000,
    batch: int = 64,
    lr: float | None = None,
    start: Path | None = None,
) -> nn.ModuleDict:
    """The UNet, on a CPU: AdamW with a one-cycle schedule on the scenes of ``make_latents``."""
    torch.manual_seed(seed)
    parts = load_parts(recipe, start)
    for parameter in parts.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    data, scaling = load_latents(work)
    examples = Examples(data, scaling, batch, recipe.flow, no_text())
    terms = Terms.of(recipe, parts)

    def example(step: int) -> tuple[Tensor, ...]:
        return examples(torch.Generator().manual_seed(seed * 1_000_003 + step))

    def loss_on(*example: Tensor) -> Tensor:
        error, grounding = terms(*example)
        return error + GROUNDING * grounding

    with attention(eager_attention(terms.kept)):
        loss = compiled(loss_on, parts, example(0))

        def loss_of(step: int) -> Tensor:
            with autocast():
                return loss(*example(step))

        checkpoint = work / f"{recipe.name}.pt"
        fit(parts, loss_of, steps=steps, lr=recipe.lr if lr is None else lr, checkpoint=checkpoint)
    return parts


def export(recipe: Recipe, work: Path, target: Path) -> None:
    """Writes the averaged weights that ``train_diffusion`` left, with the autoencoder of ``work``,
    as a pipeline folder."""
    state = torch.load(work / f"{recipe.name}.pt", weights_only=True)
    parts = recipe.make()
    parts.load_state_dict(state["model"])
    parts.load_state_dict(state["average"], strict=False)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    _, scaling = load_latents(work)
    vae.register_to_config(scaling_factor=scaling, shift_factor=0.0, _name_or_path="sprites")
    save_pipeline(recipe, parts, vae, target)


def save_pipeline(recipe: Recipe, parts: nn.ModuleDict, vae: AutoencoderKL, target: Path) -> None:
    """A pipeline folder in float16."""
    recipe.pipeline(parts, vae).to(torch.float16).save_pretrained(target)
    # transformers would otherwise load the text encoders in float16 beside a float32 denoiser
    for config in target.glob("text_encoder*/config.json"):
        config.write_text(
            config.read_text("utf-8").replace('"dtype": "float16"', '"dtype": "float32"'), "utf-8"
        )
