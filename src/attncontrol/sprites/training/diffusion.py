"""Training of the bundled models: denoiser and text encoders together, on encoded scenes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attncontrol.sprites.scenes import SIZE, Scene, render, sample
from attncontrol.sprites.training.fit import compiled, fit, to_tensor
from attncontrol.sprites.training.text import MAX_TOKENS, make_tokenizer, t5_ids

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


def word_objects(scene: Scene, offsets: list[tuple[int, int]]) -> list[int]:
    """For every token the object that its word describes in the picture, or -1 (no such word, or
    its object is not shown)."""
    owners = [-1] * len(offsets)
    for i, (named, shown) in enumerate(zip(scene.named, scene.shown, strict=True)):
        spans = [] if shown is None else [scene.noun_spans[i]]
        if shown is not None and named.color is not None and shown.color == named.color:
            spans.append(scene.color_spans[i])  # type: ignore[arg-type]  # a named colour has a span
        for k, (start, end) in enumerate(offsets):
            if any(start < stop and first < end for first, stop in spans):
                owners[k] = i
    return owners


@torch.no_grad()
def make_latents(work: Path, *, seed: int, count: int, batch: int = 100) -> None:
    """Encodes ``count`` scenes once: latents (4, 16, 16), token ids (32,), the object of each token
    and coverage (3, 16, 16)."""
    vae = AutoencoderKL.from_pretrained(work / "vae").eval().to(memory_format=torch.channels_last)
    tokenizer = make_tokenizer()
    data: dict[str, list[Tensor]] = {"latents": [], "ids": [], "owners": [], "coverage": []}
    for start in track(range(0, count, batch), description="latents"):
        scenes = [sample(np.random.default_rng((seed, 2, i))) for i in range(start, start + batch)]
        pictures, masks = zip(*(render(scene) for scene in scenes), strict=True)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(
                to_tensor(np.stack(pictures)).contiguous(memory_format=torch.channels_last)
            ).latent_dist.mean
        tokens = tokenizer(
            [s.caption for s in scenes],
            padding="max_length",
            max_length=MAX_TOKENS,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        owners = [
            word_objects(s, o) for s, o in zip(scenes, tokens.offset_mapping.tolist(), strict=True)
        ]
        padded = torch.zeros(batch, 3, SIZE, SIZE)
        for i, mask in enumerate(masks):
            padded[i, : len(mask)] = torch.from_numpy(mask).float()
        data["latents"].append(latents.half())
        data["ids"].append(tokens.input_ids.short())
        data["owners"].append(torch.tensor(owners, dtype=torch.int8))
        data["coverage"].append(F.avg_pool2d(padded, 8).half())
    save_file({k: torch.cat(v).contiguous() for k, v in data.items()}, work / "latents.safetensors")


def grounding_loss(maps: list[Tensor], owners: Tensor, coverage: Tensor, weight: Tensor) -> Tensor:
    """Mean over tokens with an object of (1 - attention inside the object / attention everywhere)
    squared.

    TokenCompose (arXiv 2312.03626), token loss, on the mean map of each resolution. ``weight``
    (batch,) scales samples.
    """
    total = torch.zeros(())
    known = (owners >= 0).float() * weight[:, None]
    index = owners.clamp(min=0).long()
    for tokens in sorted({m.shape[1] for m in maps}):
        mean = torch.stack([m for m in maps if m.shape[1] == tokens]).mean(0)  # batch, pixel, token
        side = math.isqrt(tokens)
        inside = (
            (F.adaptive_avg_pool2d(coverage, side) > 0.2).float().flatten(2)
        )  # batch, object, pixel
        inside = inside.gather(1, index[..., None].expand(-1, -1, tokens))  # batch, token, pixel
        share = (mean.transpose(1, 2) * inside).sum(-1) / mean.sum(1).clamp(min=1e-6)
        total = total + ((1 - share).square() * known).sum() / known.sum().clamp(min=1e-3)
    return total


def eager_attention(kept: list[Tensor]) -> Callable[..., Tensor]:
    """Explicit softmax attention, whose backward in bfloat16 is faster than SDPA's on a CPU;
    appends head-mean probabilities."""

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any,
        is_causal: bool = False, scale: float | None = None, **__: Any,
    ) -> Tensor:  # fmt: skip
        logits = (
            query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        ).float()
        if is_causal:
            logits = logits.masked_fill(
                torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1), -torch.inf
            )
        if attn_mask is not None:
            logits = (
                logits.masked_fill(~attn_mask, -torch.inf)
                if attn_mask.dtype == torch.bool
                else logits + attn_mask
            )
        probabilities = logits.softmax(-1)
        kept.append(probabilities.mean(1))
        return probabilities.to(value.dtype) @ value

    return attention


def load_parts(recipe: Recipe, start: Path | None) -> nn.ModuleDict:
    """The parts, new or with the weights of an exported pipeline."""
    parts = recipe.make()
    if start is not None:
        pipe = DiffusionPipeline.from_pretrained(start, dtype=torch.float32)
        for name, part in parts.items():
            part.load_state_dict(getattr(pipe, name).state_dict())
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
    for parameter in parts.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    data = load_file(work / "latents.safetensors")
    scaling = 1 / data["latents"].float().std().item()
    empty = make_tokenizer()(
        "", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
    ).input_ids[0]
    levels = DDIMScheduler(**SD1_NOISE).alphas_cumprod
    kept: list[Tensor] = []

    def loss_on(
        latents: Tensor, noise: Tensor, t: Tensor, texts: Tensor, owners: Tensor, coverage: Tensor
    ) -> Tensor:
        if recipe.flow:
            keep, spread, target, weight = (
                1 - t / 1000,
                t / 1000,
                noise - latents,
                torch.ones_like(t),
            )
        else:
            level = levels[t.long()]
            ratio = level / (1 - level)
            keep, spread, target, weight = (
                level.sqrt(),
                (1 - level).sqrt(),
                noise,
                ratio.clamp(max=5) / ratio,
            )
        noisy = keep[:, None, None, None] * latents + spread[:, None, None, None] * noise
        kept.clear()
        error = (recipe.predict(parts, noisy, t, texts).float() - target).square().mean((1, 2, 3))
        maps, positions = recipe.attended(kept)
        return (error * weight).mean() + GROUNDING * grounding_loss(
            maps, owners[:, positions], coverage, keep
        )

    def example(step: int) -> tuple[Tensor, ...]:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pick = torch.randint(len(data["ids"]), (batch,), generator=rng)
        t = (
            torch.randn(batch, generator=rng).sigmoid() * 1000
            if recipe.flow
            else torch.randint(1000, (batch,), generator=rng)
        )
        latents = data["latents"][pick].float() * scaling
        noise = torch.randn(latents.shape, generator=rng)
        ids, owners = data["ids"][pick].long(), data["owners"][pick]
        drop = torch.rand(batch, generator=rng) < 0.1
        ids[drop], owners[drop] = empty, -1
        return (
            latents,
            noise,
            t,
            torch.stack([ids, t5_ids(ids)], 1),
            owners,
            data["coverage"][pick].float(),
        )

    attention = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = eager_attention(kept)  # for the time of the training
    try:
        loss = compiled(loss_on, parts, example(0))

        def loss_of(step: int) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return loss(*example(step))

        fit(parts, loss_of, steps=steps, lr=lr, checkpoint=work / f"{recipe.name}.pt")
    finally:
        F.scaled_dot_product_attention = attention
    return parts


def export(recipe: Recipe, work: Path, target: Path) -> None:
    """Writes the averaged weights as a pipeline folder in float16."""
    state = torch.load(work / f"{recipe.name}.pt", weights_only=True)
    parts = recipe.make()
    parts.load_state_dict(state["model"])
    parts.load_state_dict(state["average"], strict=False)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    scaling = 1 / load_file(work / "latents.safetensors")["latents"].float().std().item()
    vae.register_to_config(scaling_factor=scaling, shift_factor=0.0, _name_or_path="sprites")
    recipe.pipeline(parts, vae).to(torch.float16).save_pretrained(target)
    # transformers would otherwise load the text encoders in float16 beside a float32 denoiser
    for config in target.glob("text_encoder*/config.json"):
        config.write_text(
            config.read_text("utf-8").replace('"dtype": "float16"', '"dtype": "float32"'), "utf-8"
        )
