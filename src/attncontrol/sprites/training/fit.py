"""Training loops on a CPU: compiled losses, checkpoints, weight averaging."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers.models.upsampling import Upsample2D
from rich.progress import track
from torch import Tensor, nn

from attncontrol.errors import ModelError


def to_tensor(pictures: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (batch, height, width, 3) -> float (batch, 3, height, width) in [-1, 1]."""
    bytes_ = torch.from_numpy(pictures).to(device)
    return bytes_.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def autocast(enabled: bool = True, device: str = "cpu") -> torch.autocast:
    """bfloat16 on an accelerator and on processors that compute in it, float32 elsewhere.

    Emulated bfloat16 is slow: a first pass of FLUX and back took 5 times as long on AVX2.
    """
    native = device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=enabled and native)


def compiled(
    loss: Callable[..., Tensor], model: nn.Module, example: tuple[Tensor, ...]
) -> Callable[..., Tensor]:
    """torch.compile of a loss under ``autocast``, checked once against eager float32 gradients
    on ``example``.

    Upsampling by ``F.interpolate`` is replaced: its compiled backward on a CPU returned zeros
    (torch 2.13). The reference is float32 because eager bfloat16 gradients of normalisation weights
    are off by up to 80 % there. Raises ModelError if a gradient differs by more than half its
    norm plus a thousandth of the largest norm: rounding stays below 10 % for new weights and
    reaches 40 % for biases near a minimum, where gradients cancel.
    """
    for module in model.modules():
        if isinstance(module, Upsample2D):
            module.forward = functools.partial(_upsample, module.conv)
    fast = torch.compile(loss)
    gradients = []
    for function in (loss, fast):
        model.zero_grad()
        with autocast(function is fast):
            function(*example).backward()
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        )
    slack = 1e-3 * max(float(g.norm()) for g in gradients[0].values())
    for name, gradient in gradients[0].items():
        if (gradient - gradients[1][name]).norm() > 0.5 * gradient.norm() + slack:
            raise ModelError(f"the compiled gradient of {name} is wrong; train without compilation")
    return fast


def _upsample(conv: nn.Module, hidden: Tensor, *_: object) -> Tensor:
    return conv(hidden.repeat_interleave(2, 2).repeat_interleave(2, 3))


def one_cycle(step: int, steps: int, *, warm: float = 0.03) -> float:
    """Factor of the learning rate: linear from 0 to 1 over the ``warm`` fraction of the steps, then
    half a cosine to 0."""
    progress = (step + 1) / (steps + 1)
    return (
        progress / warm
        if progress < warm
        else 0.5 + 0.5 * math.cos(math.pi * (progress - warm) / (1 - warm))
    )


def fit(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    checkpoint: Path,
    every: int = 200,
    decay: float = 0.999,
) -> None:
    """AdamW with a one-cycle schedule and an exponential moving average of the weights, resumed
    from ``checkpoint``.

    The averaged weights are in ``model`` when the function returns.
    """
    torch.set_flush_denormal(True)
    unfinished = checkpoint.with_suffix(".tmp")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.99), fused=True
    )
    average = {k: v.detach().clone() for k, v in model.named_parameters()}
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]
    running = math.nan
    for step in track(range(start, steps), description=checkpoint.stem):
        for group in optimizer.param_groups:
            group["lr"] = lr * one_cycle(step, steps)
        last = _stepped(model, optimizer, loss_of(step))
        keep = min(decay, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(model.parameters()), 1 - keep)
        running = last if math.isnan(running) else 0.98 * running + 0.02 * last
        if (step + 1) % every == 0 or step + 1 == steps:
            print(f"{checkpoint.stem} step {step + 1}/{steps} loss {running:.4f}", flush=True)
            state = {"model": model.state_dict(), "average": average, "step": step + 1}
            torch.save(state | {"optimizer": optimizer.state_dict()}, unfinished)
            unfinished.replace(checkpoint)
    model.load_state_dict(average, strict=False)


def _stepped(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()
