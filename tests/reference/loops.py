"""Sampling loops of four architectures with Attend-and-Excite written out, for one prompt: oracles
in float64.

z: the latents; c: the scheduler's scaling of the model input (1 where there is none). Each step:
the probabilities of every call of scaled_dot_product_attention in the conditional forward (explicit
softmax); of each text site the rows of the picture and the columns of the prompt's tokens; A = mean
over heads and sites; the loss of ``subject_loss``; z <- z - alpha / c^2 dL/dz; then the plain step
with classifier-free guidance.
"""

import math

import torch
import torch.nn.functional as F

from tests.reference.attend_and_excite import gaussian


class Softmax:
    """Replaces scaled_dot_product_attention by the explicit product and keeps every probability
    matrix."""

    def __init__(self, monkeypatch):
        self.seen = []
        monkeypatch.setattr(F, "scaled_dot_product_attention", self)

    def __call__(self, query, key, value, attn_mask=None, is_causal=False, scale=None, **_):
        logits = (
            query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        )
        if is_causal:
            logits = logits.masked_fill(
                ~torch.ones(logits.shape[-2:], dtype=torch.bool).tril(), -torch.inf
            )
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, -torch.inf)
        elif attn_mask is not None:
            logits = logits + attn_mask
        self.seen.append(logits.softmax(-1).nan_to_num())  # rows whose keys are all masked are zero
        return self.seen[-1] @ value


def loss_of(maps, encoders, subjects):
    """``maps`` (height, width, token); ``encoders``: the token positions of each; ``subjects``:
    token positions."""
    worst = []
    for tokens in encoders:
        sharp = torch.softmax(100 * maps[..., tokens], -1)
        worst += [1 - gaussian(sharp[..., tokens.index(s)]).max() for s in subjects if s in tokens]
    return max(worst)


def steered(
    pipe,
    softmax,
    call,
    z,
    *,
    text_calls,
    rows,
    columns,
    grid,
    encoders,
    subjects,
    alpha,
    guided,
    scale,
    negative,
):
    """Latents after all steps.

    ``call(z, t, branch)`` is the model's prediction; ``text_calls`` the numbers of the text sites
    among the attention calls of one forward; ``rows`` and ``columns`` the picture and the text in
    these.
    """
    scheduler, total = pipe.scheduler, len(pipe.scheduler.timesteps)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z
        c = float((x / z).flatten()[0])
        if i < guided:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                softmax.seen.clear()
                call(leaf, t, "cond")
                picked = [softmax.seen[n][0, :, rows, columns].mean(0) for n in text_calls]
                frames = torch.stack(picked).mean(0).unflatten(0, (-1, *grid[-2:]))  # or a picture
                each = [loss_of(maps, encoders, subjects) for maps in frames]
                loss = torch.stack(each).mean()
                (gradient,) = torch.autograd.grad(loss, leaf)
            change = -alpha * math.sqrt(1 - 0.5 * i / max(total - 1, 1)) * gradient
            x, z = x + change, z + change / c
        prediction = call(x, t, "cond")
        if negative:
            uncond = call(x, t, "uncond")
            prediction = uncond + scale * (prediction - uncond)
        z = scheduler.step(prediction, t, z, return_dict=False)[0]
    return z
