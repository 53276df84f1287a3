"""The losses of an objective and their gradient in the latents: one more pass of the denoiser."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from attncontrol.errors import NonFiniteError
from attncontrol.running.backward import differentiable
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.looking import View
from attncontrol.running.seeing import seeing
from attncontrol.running.session import Session

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images, change) -> losses [image] and gradients at x + change, for some images."""


def loss_and_gradient(
    run: Session, view: View, call: DenoiserCall, images: Tensor, change: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses [batch] and gradients (shape of ``change[images]``) in x of some images, at x +
    change.

    Sources of edits that are not among them ride along as the last rows.
    """
    numbers = [call.images[i] for i in images.tolist()]
    riders = [number for number in run.sources if number not in numbers]
    part = call.of("cond", [*numbers, *riders])
    rows = [call.images.index(number) for number in part.images]
    moved = (part.latents + change[rows]).detach()

    with torch.enable_grad(), differentiable(run.denoiser):
        x = moved[: len(numbers)].clone().requires_grad_()
        part = part.with_latents(torch.cat([x, moved[len(numbers) :]]) if riders else x)
        with seeing(run, view, part, len(riders)) as seen:
            losses = view.losses(seen, numbers)
            gradient = _gradient(run, losses, x, part.latents.dtype)
    if not (losses.isfinite().all() and gradient.isfinite().all()):
        finite = losses.isfinite() & gradient.flatten(1).isfinite().all(1)
        state = "finite" if x.isfinite().all() else "already NaN or infinite"
        raise NonFiniteError(
            f"loss {losses.tolist()} or its gradient is not finite at step {call.step.index} for "
            f"image(s) {images[~finite].tolist()}; the latents were {state}. Lower the step size, "
            "or run the model in float32"
        )
    return losses.detach(), gradient


def _gradient(run: Session, losses: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    boost = 256.0 if dtype == torch.float16 else 1.0  # else half-precision backwards underflow
    if losses.requires_grad:
        (gradient,) = torch.autograd.grad(losses.sum() * boost, x)
        gradient = gradient / boost
    else:  # all the maps are those of a source
        gradient = torch.zeros_like(x)
    if run.takes and not gradient.any():
        warnings.warn(
            "no loss depends on the latents of its image, since an edit gives it the attention of "
            "a source that is not steered: nothing is. Steer other layers than the edit's",
            stacklevel=2,
        )
    return gradient


def in_units(evaluate: Evaluate, images: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """With gradients of unit root mean square in every image; zeros stay."""
    losses, gradient = evaluate(images, change)
    gradient = gradient.to(change)
    sizes = rms(gradient)
    sizes = sizes.clamp_min(torch.finfo(sizes.dtype).tiny)
    return losses, gradient / sizes.view(-1, *[1] * (gradient.ndim - 1))


def rms(values: Tensor) -> Tensor:
    """Root mean square of every image, [image]."""
    return values.flatten(1).square().mean(1).sqrt()
