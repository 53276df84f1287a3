"""Encoded scenes: made once, and drawn for every training step."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from attncontrol.sprites.training.captions import Piece, drawn
from attncontrol.sprites.training.fit import to_tensor
from attncontrol.sprites.training.text import MAX_TOKENS, make_tokenizer, t5_ids

PIECE = 250  # scenes that a process draws, and the autoencoder encodes, at once


@torch.no_grad()
def encode_scenes(
    vae: AutoencoderKL, *, seed: int, count: int, captions: int, device: str = "cpu"
) -> dict[str, Tensor]:
    """``count`` scenes, drawn by all cores and encoded on ``device``: latents [scene 4 16 16], CLIP
    and T5 ids [scene caption 2 32], the object of each token [scene caption 32] and coverage
    [scene 3 16 16]. The same for the same seed; ``captions`` as in ``Piece``."""
    vae = vae.eval().to(device).to(memory_format=torch.channels_last)
    pieces = [
        Piece(seed, start, min(start + PIECE, count), captions) for start in range(0, count, PIECE)
    ]
    data: dict[str, list[Tensor]] = {"latents": [], "ids": [], "owners": [], "coverage": []}
    with _processes(min(os.cpu_count() or 1, len(pieces))) as mapped:
        for arrays in track(mapped(drawn, pieces), total=len(pieces), description="scenes"):
            pixels = to_tensor(arrays.pop("pictures"), device)
            data["latents"].append(vae.encode(pixels).latent_dist.mean.half())
            for name, array in arrays.items():
                data[name].append(torch.from_numpy(array))
    made = {name: torch.cat(tensors).contiguous() for name, tensors in data.items()}
    ids = made.pop("ids")
    t5 = t5_ids(ids.flatten(0, 1).long()).view(ids.shape).short()
    made["texts"] = torch.stack([ids, t5], 2)
    return {name: tensor.to(device) for name, tensor in made.items()}


@contextmanager
def _processes(count: int) -> Iterator[Callable[..., Any]]:
    if count < 2:
        yield map
        return
    with get_context("spawn").Pool(count) as pool:
        yield pool.imap


def make_latents(work: Path, *, seed: int, count: int = 20_000) -> None:
    """Encodes scenes under their own captions, for the UNet."""
    vae = AutoencoderKL.from_pretrained(work / "vae")
    data = encode_scenes(vae, seed=seed, count=count, captions=0)
    save_file(data, work / "latents.safetensors")


def load_latents(work: Path) -> tuple[dict[str, Tensor], float]:
    """What ``make_latents`` wrote, and the factor that gives latents the deviation 1."""
    data = load_file(work / "latents.safetensors")
    return data, 1 / data["latents"].float().std().item()


def no_text() -> Tensor:
    """CLIP and T5 ids [2 32] of the empty caption."""
    encoded = make_tokenizer()(
        [""], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
    )
    return torch.cat([encoded.input_ids, t5_ids(encoded.input_ids)])


@dataclass(frozen=True)
class Examples:
    """Batches of encoded scenes, drawn on their device; 10 % have the ``empty`` caption.

    Of a batch: latents and noise [batch 4 16 16], time [batch], CLIP and T5 token ids [batch 2 32],
    the object of each token [batch 32] and coverage [batch 3 16 16]. One time of every 1 / batch of
    the distribution: logit-normal for a ``flow``, uniform timesteps else. Nothing waits for the
    device, so a graph can hold it.
    """

    data: dict[str, Tensor]
    scaling: float
    batch: int
    flow: bool
    empty: Tensor

    def __call__(self, rng: torch.Generator | None = None) -> tuple[Tensor, ...]:
        on: dict[str, Any] = {"device": self.data["latents"].device, "generator": rng}
        scenes, captions = self.data["owners"].shape[:2]
        pick = torch.randint(scenes, (self.batch,), **on)
        said = torch.randint(captions, (self.batch,), **on)
        latents = self.data["latents"][pick].float() * self.scaling
        noise = torch.randn(latents.shape, **on)
        dropped = (torch.rand(self.batch, **on) < 0.1)[:, None]
        texts = torch.where(dropped[..., None], self.empty, self.data["texts"][pick, said].long())
        owners = torch.where(dropped, -1, self.data["owners"][pick, said])
        coverage = self.data["coverage"][pick].float()
        return latents, noise, self._times(on), texts, owners, coverage

    def _times(self, on: dict[str, Any]) -> Tensor:
        places = torch.arange(self.batch, device=on["device"]) + torch.rand(self.batch, **on)
        quantiles = (places / self.batch).clamp(1e-4, 1 - 1e-4)
        if self.flow:
            return torch.special.ndtri(quantiles).sigmoid() * 1000
        return (quantiles * 1000).floor()
