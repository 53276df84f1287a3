"""What checks on an accelerator have in common: pipelines there, times and differences."""

import gc
import statistics
import time
import warnings

import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel, UNet2DConditionModel

from attncontrol import sprites
from tests.kit.tiny import tiny_components, tiny_sd, tiny_text_encoder
from tests.kit.zoo import flux
from tests.perf.ratios import spread

PROMPT = "a red cat and a turtle"
WORDS = ["cat", "turtle"]


class NothingHereError(Exception):
    """A check that this machine has nothing for."""


def require_cuda(device: str) -> None:
    if not device.startswith("cuda"):
        raise NothingHereError("needs CUDA")


def bundled(name: str, device: str, dtype=torch.float32):
    pipe = DiffusionPipeline.from_pretrained(sprites.path(name), torch_dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def wide_flux(device: str, blocks: int = 2):
    """Of FLUX.1's width and heads on a CUDA device, with tiny encoders."""
    full = device.startswith("cuda")
    pipe = flux().to(torch.bfloat16 if full else torch.float32).to(device)
    heads, width, axes = (24, 128, (16, 56, 56)) if full else (2, 16, (4, 6, 6))
    torch.manual_seed(0)
    with torch.device(device):
        transformer = FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=blocks, num_single_layers=blocks,
            attention_head_dim=width, num_attention_heads=heads, joint_attention_dim=32,
            pooled_projection_dim=32, axes_dims_rope=axes,
        )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if "norm_q" in name or "norm_added_q" in name:
            parameter.data.mul_(4.0)  # attention that is peaked
    pipe.transformer = transformer.to(pipe.text_encoder.dtype).eval().requires_grad_(False)
    return pipe


def wide_call(device: str) -> dict:
    """4,096 cells and 512 positions of text on a CUDA device."""
    full = device.startswith("cuda")
    size, text = (1024, 512) if full else (64, 16)
    return {"height": size, "width": size, "max_sequence_length": text, "guidance_scale": 3.5}


def sd15(device: str):
    """A Stable Diffusion 1.5 of full size in float16, with tiny encoders; tiny on a processor."""
    if not device.startswith("cuda"):
        return tiny_sd(dtype=torch.float32)
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    tokenizer = tiny_components()["tokenizer"]
    tokenizer.model_max_length = 77
    parts = {
        "unet": unet.requires_grad_(False),
        "tokenizer": tokenizer,
        "text_encoder": tiny_text_encoder(tokenizer, width=768),
    }
    return tiny_sd(dtype=torch.float16, **parts).to(device)


def latents(pipe, prompt=PROMPT, *, steps=2, seed=0, device="cpu", **call):
    generator = torch.Generator(device).manual_seed(seed)
    out = pipe(
        prompt=prompt, generator=generator, num_inference_steps=steps, output_type="latent", **call
    )
    return out.images


def timed(device: str, run) -> float:
    """Seconds by the clock, until the device is done."""
    wait(device)
    began = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - began


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def turns(device: str, runs: dict, repeats: int = 3) -> dict:
    """Times of runs by name over those of the first, in turns; the first round is not counted."""
    seconds = {name: [] for name in runs}
    for nth in range(repeats + 1):
        for name, run in runs.items():
            took = timed(device, run)
            if nth:
                seconds[name].append(took)
    plain, *others = runs
    found = {f"{plain}, s": round(statistics.median(seconds[plain]), 4)}
    for name in others:
        pairs = zip(seconds[name], seconds[plain], strict=True)
        found[f"{name} / {plain}"] = spread([one / other for one, other in pairs])
    return found


def peak(device: str, run) -> float:
    """MiB that were held at most above those before."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    wait(device)
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def told(run) -> tuple[object, list[str]]:
    """What a run returns and warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run()
    return result, [str(each.message)[:160] for each in caught]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, over the largest value."""
    one, other = one.double().cpu(), other.double().cpu()
    return float(f"{(one - other).abs().max() / other.abs().max():.3g}")
