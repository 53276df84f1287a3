"""The losses of an objective and their gradient in the latents: one more pass of the denoiser."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.moment import Moment
from attncontrol.errors import NonFiniteError
from attncontrol.running.adapters import scaled_adapters
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.session import Session
from attncontrol.verbs.looking import Seen, View

Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images, change) -> losses [image] and gradients at x + change, for some images."""


class _Enough(Exception):  # noqa: N818 - a signal, not an error
    """Ends the denoiser's forward once every wanted site has been seen."""


def loss_and_gradient(
    run: Session, view: View, call: DenoiserCall, images: Tensor, change: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses [batch] and gradients (shape of ``change[images]``) in x of some images, at x +
    change.

    Sources of edits that are not among them ride along as the last rows.
    """
    numbers = [call.images[i] for i in images.tolist()]
    riders = [number for number in run.sources if number not in numbers]
    part, seen = call.of("cond", [*numbers, *riders]), Seen()
    rows = [call.images.index(number) for number in part.images]
    moved = (part.latents + change[rows]).detach()

    def listen(attention: AttentionCall, now: Moment) -> Tensor:
        again = view.complete(seen)  # gradient checkpointing computes it again
        output = view.look(attention, now, seen)
        if view.complete(seen) and not again:
            raise _Enough
        return output

    sites = view.gaze.sites
    with torch.enable_grad(), frozen(run.denoiser):
        x = moved[: len(numbers)].clone().requires_grad_()
        part = part.with_latents(torch.cat([x, moved[len(numbers) :]]) if riders else x)
        with (
            run.passing(part, "gradient", sites=sites, listen=listen, riders=len(riders)),
            scaled_adapters(run.denoiser, part.arguments) as arguments,
        ):
            with suppress(_Enough):
                run.denoiser.forward(**arguments)
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


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No weight gradients inside: activations that only they need are not kept."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
