"""The UNet and text encoder of the bundled model, trained together on encoded scenes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from attncontrol.testbed.fit import compiled, fit, to_tensor
from attncontrol.testbed.scenes import SIZE, Scene, render, sample
from attncontrol.testbed.text import MAX_TOKENS, make_text_encoder, make_tokenizer

GROUNDING = 0.03


def word_objects(scene: Scene, offsets: list[tuple[int, int]]) -> list[int]:
    """For every token the object that its word describes in the picture, or -1 (no such word, or its object is not shown)."""
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
    """Encodes ``count`` scenes once: latents (4, 16, 16), token ids (32,), the object of each token and coverage (3, 16, 16)."""
    vae = AutoencoderKL.from_pretrained(work / "vae").eval().to(memory_format=torch.channels_last)
    tokenizer = make_tokenizer()
    data: dict[str, list[Tensor]] = {"latents": [], "ids": [], "owners": [], "coverage": []}
    for start in track(range(0, count, batch), description="latents"):
        scenes = [sample(np.random.default_rng((seed, 2, i))) for i in range(start, start + batch)]
        pictures, masks = zip(*(render(scene) for scene in scenes), strict=True)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(to_tensor(np.stack(pictures)).contiguous(memory_format=torch.channels_last)).latent_dist.mean
        tokens = tokenizer(
            [s.caption for s in scenes],
            padding="max_length",
            max_length=MAX_TOKENS,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        owners = [word_objects(s, o) for s, o in zip(scenes, tokens.offset_mapping.tolist(), strict=True)]
        padded = torch.zeros(batch, 3, SIZE, SIZE)
        for i, mask in enumerate(masks):
            padded[i, : len(mask)] = torch.from_numpy(mask).float()
        data["latents"].append(latents.half())
        data["ids"].append(tokens.input_ids.short())
        data["owners"].append(torch.tensor(owners, dtype=torch.int8))
        data["coverage"].append(F.avg_pool2d(padded, 8).half())
    save_file({k: torch.cat(v).contiguous() for k, v in data.items()}, work / "latents.safetensors")


class _KeepProbabilities:
    """Eager attention, faster backward than SDPA in bfloat16 on a CPU; keeps the mean probabilities of cross-attention."""

    probabilities: Tensor | None = None

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        probabilities = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(-1)
        if encoder_hidden_states is not None:
            self.probabilities = probabilities.mean(1)
        out = (probabilities.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[0](out)


def make_unet() -> UNet2DConditionModel:
    """4.3 M parameters, self- and cross-attention at 16 x 16 and 8 x 8, heads of width 32."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=(2, 4),  # diffusers: the number of heads
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def grounding_loss(maps: list[Tensor], owners: Tensor, coverage: Tensor, weight: Tensor) -> Tensor:
    """Mean over tokens with an object of (1 - attention inside the object / attention everywhere) squared.

    TokenCompose (arXiv 2312.03626), token loss, on the mean map of each resolution. ``weight`` (batch,) scales samples.
    """
    total = torch.zeros(())
    known = (owners >= 0).float() * weight[:, None]
    index = owners.clamp(min=0).long()
    for tokens in sorted({m.shape[1] for m in maps}):
        mean = torch.stack([m for m in maps if m.shape[1] == tokens]).mean(0)  # batch, pixel, token
        side = math.isqrt(tokens)
        inside = (F.adaptive_avg_pool2d(coverage, side) > 0.2).float().flatten(2)  # batch, object, pixel
        inside = inside.gather(1, index[..., None].expand(-1, -1, tokens))  # batch, token, pixel
        share = (mean.transpose(1, 2) * inside).sum(-1) / mean.sum(1).clamp(min=1e-6)
        total = total + ((1 - share).square() * known).sum() / known.sum().clamp(min=1e-3)
    return total


def make_diffusion(start: Path | None = None) -> nn.ModuleDict:
    """UNet and text encoder, new or with the weights of an exported pipeline."""
    model = nn.ModuleDict({"unet": make_unet(), "text": make_text_encoder(make_tokenizer())})
    if start is not None:
        pipe = StableDiffusionPipeline.from_pretrained(start, dtype=torch.float32)
        model["unet"].load_state_dict(pipe.unet.state_dict())
        model["text"].load_state_dict(pipe.text_encoder.state_dict())
    return model


def train_diffusion(
    work: Path, *, seed: int, steps: int, batch: int = 64, lr: float = 1.5e-3, start: Path | None = None
) -> nn.ModuleDict:
    """UNet and text encoder together: epsilon prediction with min-SNR-5 weights, 10 % empty captions, grounding."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = make_diffusion(start)
    unet: Any = model["unet"]
    unet.to(memory_format=torch.channels_last)
    processors = {name: _KeepProbabilities() for name in unet.attn_processors}
    cross = [p for name, p in processors.items() if "attn2" in name]
    unet.set_attn_processor(processors)
    data = load_file(work / "latents.safetensors")
    scaling = 1 / data["latents"].float().std().item()
    empty = tokenizer("", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids[0]
    levels = make_scheduler().alphas_cumprod

    def loss_on(latents: Tensor, noise: Tensor, t: Tensor, ids: Tensor, owners: Tensor, coverage: Tensor) -> Tensor:
        level = levels[t]
        noisy = level.sqrt()[:, None, None, None] * latents + (1 - level).sqrt()[:, None, None, None] * noise
        context = model["text"](ids).last_hidden_state
        error = (unet(noisy, t, context).sample.float() - noise).square().mean((1, 2, 3))
        ratio = level / (1 - level)
        maps = [p.probabilities for p in cross if p.probabilities is not None]
        return (error * ratio.clamp(max=5) / ratio).mean() + GROUNDING * grounding_loss(maps, owners, coverage, level.sqrt())

    def example(step: int) -> tuple[Tensor, ...]:
        rng = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pick = torch.randint(len(data["ids"]), (batch,), generator=rng)
        t = torch.randint(1000, (batch,), generator=rng)
        latents = data["latents"][pick].float() * scaling
        noise = torch.randn(latents.shape, generator=rng)
        ids, owners = data["ids"][pick].long(), data["owners"][pick]
        drop = torch.rand(batch, generator=rng) < 0.1
        ids[drop], owners[drop] = empty, -1
        return latents, noise, t, ids, owners, data["coverage"][pick].float()

    loss = compiled(loss_on, model, example(0))

    def loss_of(step: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(*example(step))

    fit(model, loss_of, steps=steps, lr=lr, checkpoint=work / "diffusion.pt")
    return model


def export(work: Path, target: Path) -> None:
    """Writes the averaged weights as a StableDiffusionPipeline folder in float16."""
    state = torch.load(work / "diffusion.pt", weights_only=True)
    model = make_diffusion()
    model.load_state_dict(state["model"])
    model.load_state_dict(state["average"], strict=False)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    scaling = 1 / load_file(work / "latents.safetensors")["latents"].float().std().item()
    vae.register_to_config(scaling_factor=scaling, _name_or_path="sprites")
    pipe = StableDiffusionPipeline(
        vae, model["text"], make_tokenizer(), model["unet"], make_scheduler(), None, None, requires_safety_checker=False
    )
    pipe.to(torch.float16).save_pretrained(target)
    # transformers would otherwise load the text encoder in float16 beside a float32 UNet
    config = target / "text_encoder" / "config.json"
    config.write_text(config.read_text("utf-8").replace('"dtype": "float16"', '"dtype": "float32"'), "utf-8")
