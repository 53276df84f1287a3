"""Training of the bundled transformers, denoiser and text encoders together, in one go."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from attncontrol.sprites.models import path
from attncontrol.sprites.training.diffusion import (
    GROUNDING,
    Recipe,
    Terms,
    load_parts,
    save_pipeline,
)
from attncontrol.sprites.training.fit import autocast
from attncontrol.sprites.training.grounding import attention, eager_attention
from attncontrol.sprites.training.latents import Examples, encode_scenes, no_text
from attncontrol.sprites.training.updates import Updates

CAPTIONS = 4
NOISE_SHARES = (0.7, 0.5, 0.3)


@torch.no_grad()
def picture_errors(terms: Terms, latents: Tensor, texts: Tensor) -> list[float]:
    """Mean squared errors of the predicted picture at ``NOISE_SHARES`` s of a flow.

    Epsilon models are asked at the timestep of the nearest ratio of picture to noise, (1 - s) / s.
    """
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(latents.shape, generator=rng).to(latents.device)
    ratios = (terms.levels / (1 - terms.levels)).sqrt()
    errors = []
    for share in NOISE_SHARES:
        nearest = (ratios - (1 - share) / share).abs().argmin().item()
        t = latents.new_full((len(latents),), share * 1000 if terms.recipe.flow else nearest)
        keep, spread, _ = (each[:, None, None, None] for each in terms.shares(t))
        noisy = keep * latents + spread * noise
        predicted = terms.recipe.predict(terms.parts, noisy, t, texts)
        picture = (noisy - spread * predicted) / (1 if terms.recipe.flow else keep)
        errors.append((picture - latents).square().mean().item())
    return errors


def _print(name: str, step: int, seen: Tensor, errors: list[float]) -> None:
    error, grounding = seen.tolist()
    held = " ".join(f"{each:.4f}" for each in errors)
    line = f"{name} step {step} error {error:.4f} grounding {grounding:.4f} held-out picture {held}"
    print(line, flush=True)


def train_transformer(
    recipe: Recipe,
    work: Path,
    *,
    seed: int,
    device: str = "cpu",
    count: int = 154_000,
    held_out: int = 480,
    steps: int = 4000,
    seconds: float | None = None,
    batch: int = 512,
    lr: float | None = None,
    start: Path | None = None,
) -> None:
    """Scenes under four captions each, encoded by the bundled autoencoder, then training on them by
    ``Updates``; leaves the pipeline with the averaged weights in ``work / recipe.name``.

    Prints running means of error and grounding loss, and ``picture_errors`` of further scenes.
    """
    torch.manual_seed(seed)
    parts = load_parts(recipe, start).to(device)
    vae = AutoencoderKL.from_pretrained(Path(path("sd")) / "vae")
    scaling = vae.config.scaling_factor
    scenes = count + held_out
    data = encode_scenes(vae, seed=seed, count=scenes, captions=CAPTIONS, device=device)
    known = {name: tensor[:count] for name, tensor in data.items()}
    latents, texts = data["latents"][count:].float() * scaling, data["texts"][count:, 0].long()
    examples = Examples(known, scaling, batch, recipe.flow, no_text().to(device))
    terms = Terms.of(recipe, parts)

    def loss() -> tuple[Tensor, Tensor]:
        with attention(eager_attention(terms.kept)), autocast(device=latents.device.type):
            error, grounding = terms(*examples())
        return error + GROUNDING * grounding, torch.stack([error, grounding])

    def report(step: int) -> None:
        _print(recipe.name, step, updates.seen, picture_errors(terms, latents, texts))

    updates = Updates(parts, loss)
    updates.run(lr=recipe.lr if lr is None else lr, steps=steps, seconds=seconds, report=report)
    vae.register_to_config(_name_or_path="sprites")
    save_pipeline(recipe, parts, vae, work / recipe.name)
