"""Attend-and-Excite (arXiv 2301.13826) restated slowly and literally: an oracle for float64 tests.

z: the latent of one sample; i = 0..N-1: the denoising step, t its timestep, N =
len(scheduler.timesteps); S: the subject tokens, as positions in the padded prompt (0 = start of
text).

    c        with scheduler.scale_model_input(z, t) = c z (1 for DDIM, PNDM, DPM++ multistep;
             1/sqrt(sigma^2 + 1) for Euler, LMS)
    P_l,h    softmax over keys of scale * q k^T: cross-attention layer l, head h, in UNet(c z, t,
             conditional text), batch of one
    A[y,x,k] mean of P_l,h over all heads and all layers with height*width queries (row-major over
             (y, x))
    B        softmax over tokens of 100 A[:,:,1:-1]: the first and the very last position are
             dropped, token k is channel k-1
    G        3x3 smoothing, taps exp(-(d / (2*0.5))^2), d = -1,0,1, normalised (a Gaussian of sigma
             0.7071); reflect padding
    m_s      max over (y, x) of G(B[:,:,s-1]), without G if smooth=False
    L(z)     max over s in S of max(0, 1 - m_s)
    alpha_i  scale_factor * sqrt(linspace(1, 0.5, N)[i])
    update   z <- z - alpha_i / c^2 * dL/dz, skipped when L is exactly 0; relative=True: the input
             x = c z of the network moves by -alpha_i g / sqrt(mean g^2), g = dL/dx

Step i, for each sample by itself:
 1. L at z.
 2. If i is in thresholds: while L > 1 - thresholds[i], at most max_refinement_steps times: L <-
    L(z), then update z. The test after an update sees the loss from *before* it, so a refinement
    that starts makes at least two updates (limit permitting), the last of them from a z that met
    the target already. Then L is computed once more, at the refined z.
 3. If i < max_iter_to_alter: update z with that L.
Then for the whole batch: noise prediction (classifier-free guidance iff guidance_scale > 1) and
scheduler.step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

THRESHOLDS: Mapping[int, float] = {0: 0.05, 10: 0.5, 20: 0.8}


def mean_cross_attention(
    unet: Any, x: Tensor, t: Tensor, text: Tensor, grid: tuple[int, int], kind: str = "attn2"
) -> Tensor:
    """A: (height, width, tokens). Queries and keys are caught where they are projected; the softmax
    is taken here. Of "attn1", self-attention, the tokens are the cells."""
    height, width = grid
    caught: dict[Any, Tensor] = {}  # projection module -> its output
    layers = [module for name, module in unet.named_modules() if name.endswith(kind)]

    def catch(module: Any, _args: Any, output: Tensor) -> None:
        caught[module] = output[0]  # the only sample: (queries or tokens, heads * d)

    handles = [
        projection.register_forward_hook(catch)
        for layer in layers
        for projection in (layer.to_q, layer.to_k)
    ]
    try:
        unet(x, t, encoder_hidden_states=text)
    finally:
        for handle in handles:
            handle.remove()

    maps = []
    for layer in layers:
        query, key = caught[layer.to_q], caught[layer.to_k]
        if query.shape[0] == height * width:
            for q, k in zip(
                query.chunk(layer.heads, dim=1), key.chunk(layer.heads, dim=1), strict=True
            ):
                maps.append(torch.softmax(layer.scale * q @ k.T, dim=-1).reshape(height, width, -1))
    return torch.stack(maps).mean(dim=0)


def gaussian(image: Tensor) -> Tensor:
    """G of one (height, width) map, reflected at the border and weighted over 3x3 windows."""
    taps = [math.exp(-((d / (2 * 0.5)) ** 2)) for d in (-1, 0, 1)]
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="reflect")[0, 0]
    windows = padded.unfold(0, 3, 1).unfold(1, 3, 1)  # (height, width, 3, 3)
    kernel = torch.tensor(
        [[a * b / sum(taps) ** 2 for b in taps] for a in taps],
        dtype=image.dtype,
        device=image.device,
    )
    return (windows * kernel).sum(dim=(2, 3))


def subject_loss(attention: Tensor, tokens: Sequence[int], smooth: bool, end: int) -> Tensor:
    """L from A."""
    sharp = torch.softmax(100 * attention[:, :, 1:end], dim=-1)
    losses = []
    for token in tokens:
        image = gaussian(sharp[:, :, token - 1]) if smooth else sharp[:, :, token - 1]
        losses.append(torch.clamp(1 - image.max(), min=0))
    return torch.stack(losses).max()


def loss_and_gradient(
    unet: Any,
    z: Tensor,
    c: float,
    t: Tensor,
    text: Tensor,
    grid: tuple[int, int],
    tokens: Sequence[int],
    smooth: bool,
    end: int,
) -> tuple[float, Tensor]:
    """L(z) and dL/dz, with the UNet fed c z."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        loss = subject_loss(mean_cross_attention(unet, c * z, t, text, grid), tokens, smooth, end)
        (gradient,) = torch.autograd.grad(loss, z)
    return loss.item(), gradient


def attend_and_excite(
    pipe: Any,
    prompts: list[str],
    token_indices: list[list[int]],
    latents: Tensor,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    negative_prompts: list[str] | None = None,
    grid: tuple[int, int],
    scale_factor: float = 20.0,
    relative: bool = False,
    max_iter_to_alter: int = 25,
    thresholds: Mapping[int, float] = THRESHOLDS,
    max_refinement_steps: int = 20,
    smooth: bool = True,
    scale_model_input: bool = True,
    normalize_eot: bool = False,
) -> list[Tensor]:
    """The latents (batch, 4, h, w) after every scheduler step. `latents` is unit-variance noise;
    `grid` is (height, width).

    scale_model_input=False: c = 1 in the guidance part with any scheduler, as in the original; the
    denoising forward still scales. normalize_eot=True: of Stable Diffusion 2, B over A[:,:,1:n-1]
    of the n tokens of the text with its start and its end, without padding.
    """
    scheduler, unet = pipe.scheduler, pipe.unet
    cfg = guidance_scale > 1
    with torch.no_grad():
        text, negative_text = pipe.encode_prompt(prompts, latents.device, 1, cfg, negative_prompts)
    scheduler.set_timesteps(num_inference_steps, device=latents.device)
    z = latents * scheduler.init_noise_sigma
    trajectory: list[Tensor] = []

    for i, t in enumerate(scheduler.timesteps):
        c = (
            float(scheduler.scale_model_input(torch.ones(1, dtype=z.dtype, device=z.device), t))
            if scale_model_input
            else 1.0
        )
        alpha = scale_factor * math.sqrt(1.0 - 0.5 * i / max(len(scheduler.timesteps) - 1, 1))

        def moved(z: Tensor, gradient: Tensor, c: float = c, alpha: float = alpha) -> Tensor:
            if relative:
                of_input = gradient / c
                return z - alpha * of_input / of_input.pow(2).mean().sqrt() / c
            return z - alpha / c**2 * gradient

        guided = []
        for sample, tokens in enumerate(token_indices):
            one, prompt = z[sample : sample + 1], text[sample : sample + 1]
            end = len(pipe.tokenizer(prompts[sample]).input_ids) - 1 if normalize_eot else -1
            given = (c, t, prompt, grid, tokens, smooth, end)
            loss, gradient = loss_and_gradient(unet, one, *given)
            if i in thresholds and loss > 1 - thresholds[i]:
                inner = 0
                while loss > 1 - thresholds[i] and inner < max_refinement_steps:
                    loss, gradient = loss_and_gradient(unet, one, *given)
                    if loss != 0:
                        one = moved(one, gradient)
                    inner += 1
                loss, gradient = loss_and_gradient(unet, one, *given)
            if i < max_iter_to_alter and loss != 0:
                one = moved(one, gradient)
            guided.append(one)
        z = torch.cat(guided)

        with torch.no_grad():
            x = scheduler.scale_model_input(z, t)
            noise = unet(x, t, encoder_hidden_states=text).sample
            if cfg:
                negative = unet(x, t, encoder_hidden_states=negative_text).sample
                noise = negative + guidance_scale * (noise - negative)
            z = scheduler.step(noise, t, z).prev_sample
        trajectory.append(z.clone())
    return trajectory
