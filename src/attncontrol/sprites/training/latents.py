"""Encoded scenes: made once, and drawn for every training step."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from attncontrol.sprites.scenes import SIZE, Scene, render, sample
from attncontrol.sprites.training.fit import autocast, to_tensor
from attncontrol.sprites.training.text import MAX_TOKENS, make_tokenizer, t5_ids


def word_objects(scene: Scene, offsets: list[tuple[int, int]]) -> list[int]:
    """For every token the object that its word describes in the picture, or -1 (no such word, or
    its object is not shown)."""
    owners = [-1] * len(offsets)
    for i, (named, shown) in enumerate(zip(scene.named, scene.shown, strict=True)):
        spans = [] if shown is None else [scene.noun_spans[i]]
        colored = scene.color_spans[i]
        if shown is not None and colored is not None and shown.color == named.color:
            spans.append(colored)
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
        with autocast():
            pixels = to_tensor(np.stack(pictures)).contiguous(memory_format=torch.channels_last)
            latents = vae.encode(pixels).latent_dist.mean
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


@dataclass(frozen=True)
class Examples:
    """Batches of encoded scenes, the same for the same seed and step; 10 % have an empty caption.

    Of a step: latents and noise [batch 4 16 16], time [batch], CLIP and T5 token ids [batch 2 32],
    the object of each token [batch 32] and coverage [batch 3 16 16].
    """

    data: dict[str, Tensor]
    scaling: float
    seed: int
    batch: int
    flow: bool  # logit-normal times, not uniform timesteps

    def __call__(self, step: int) -> tuple[Tensor, ...]:
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        pick = torch.randint(len(self.data["ids"]), (self.batch,), generator=rng)
        if self.flow:
            t = torch.randn(self.batch, generator=rng).sigmoid() * 1000
        else:
            t = torch.randint(1000, (self.batch,), generator=rng)
        latents = self.data["latents"][pick].float() * self.scaling
        noise = torch.randn(latents.shape, generator=rng)
        ids, owners = self.data["ids"][pick].long(), self.data["owners"][pick]
        drop = torch.rand(self.batch, generator=rng) < 0.1
        ids[drop], owners[drop] = _no_text(), -1
        coverage = self.data["coverage"][pick].float()
        return latents, noise, t, torch.stack([ids, t5_ids(ids)], 1), owners, coverage


def load_latents(work: Path) -> tuple[dict[str, Tensor], float]:
    """What ``make_latents`` wrote, and the factor that gives latents the deviation 1."""
    data = load_file(work / "latents.safetensors")
    return data, 1 / data["latents"].float().std().item()


@cache
def _no_text() -> Tensor:
    tokenizer = make_tokenizer()
    encoded = tokenizer("", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
    ids: Tensor = encoded.input_ids[0]
    return ids
