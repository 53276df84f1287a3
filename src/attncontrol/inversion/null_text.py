"""Null-text inversion (Mokady et al. 2022, arXiv 2211.09794).

    z* = (z*' - b model(z*', t, C)) / a                          the pivot, without guidance
    e(0) = model(z, t, 0) + w (model(z, t, C) - model(z, t, 0))      z' has less noise than z
    0_t = argmin |z*' - (a z + b e(0))|^2,   z' = a z + b e(0_t)     from z = z* of most noise

Adam with rate 0.01 (1 - i / 100) in step i, ``iterations`` updates from the embedding of the step
before, fewer once the loss is below ``threshold`` + 2e-5 i. As in the code the embedding of all
positions is optimised, and the loss is a mean. Several pictures have a loss each.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from attncontrol.checks.arguments import Count, NotNegative, Positive
from attncontrol.errors import CallError, ModelError
from attncontrol.inversion._driven import driven
from attncontrol.inversion._method import Back, Inversion, Learned, straight
from attncontrol.inversion._schedule import Look, Looks, Schedule
from attncontrol.inversion.negative_prompt import require_branches
from attncontrol.running.backward import differentiable
from attncontrol.running.calls import DenoiserCall, prediction_of
from attncontrol.running.session import Session

TEXT = "encoder_hidden_states"


@dataclass(frozen=True)
class NullText(Inversion):
    """With ``guidance_scale`` in the run that edits, the picture comes back nearly; all images that
    start from its noise have its unconditional embeddings.

        trajectory = invert(pipe, photo, "a cat", method=NullText(7.5), to="cat.safetensors")

    It takes ``iterations`` gradients in every step; ``to`` of ``invert`` keeps those that are done.
    Models that run both branches apart (FLUX) are refused, and those whose denoiser reads its text
    by another name (ERNIE-Image, Z-Image, HiDream).
    """

    gradients: ClassVar[bool] = True
    by_step: ClassVar[bool] = True

    guidance_scale: Positive = 7.5
    iterations: Count = 10
    threshold: NotNegative = 1e-5

    def require(self, run: Session) -> None:
        if TEXT not in inspect.signature(type(run.denoiser).forward).parameters:
            raise ModelError(
                f"{type(self).__name__} optimises {TEXT}, by which name "
                f"{type(run.denoiser).__name__} reads no text: use Exact() or NegativePrompt()"
            )

    def inverted(self, picture: Tensor, schedule: Schedule) -> Looks:
        return straight(picture, schedule)

    def fed(self, call: DenoiserCall, back: Back) -> DenoiserCall:
        require_branches(call, self)
        assert back.learned is not None  # of this method
        pictures = [back.of[image] for image in call.images]
        return with_null(call, back.learned.embeddings[pictures, call.step.index])

    def learned(
        self, back: Back, call: Mapping[str, Any], keep: Callable[[Learned], None]
    ) -> Learned:
        tuning = Tuning.begun(self, back, lambda embeddings: keep(Learned(embeddings)))
        arguments = {**call, "guidance_scale": self.guidance_scale}
        driven(back.run, onwards, back.latents[:, 0], arguments, tuning.fed)
        return Learned(torch.stack(tuning.done, 1))


def onwards(start: Tensor, schedule: Schedule) -> Looks:
    """From noise, as the scheduler goes."""
    path = [start]
    for place, update in enumerate(schedule.updates):
        prediction = yield Look(path[-1], schedule.scale(place), update.timestep)
        path.append(update.forward(path[-1], prediction))
    return path


@dataclass(eq=False)
class Tuning:
    """``done`` are the embeddings [picture position channel] of the steps so far."""

    method: NullText
    back: Back
    keep: Callable[[Tensor], None]
    done: list[Tensor]

    @classmethod
    def begun(cls, method: NullText, back: Back, keep: Callable[[Tensor], None]) -> "Tuning":
        """Goes on from those of ``back``."""
        learned = back.learned
        done = [] if learned is None else list(learned.embeddings.unbind(1))
        return cls(method, back, keep, done)

    def fed(self, call: DenoiserCall) -> DenoiserCall:
        require_branches(call, self.method)
        if call.step.index == len(self.done):
            with torch.enable_grad(), differentiable(self.back.run.denoiser):
                of_pictures = [self._optimised(call, picture) for picture in call.images]
            self.done.append(torch.cat(of_pictures))
            self.keep(torch.stack(self.done, 1))
        return with_null(call, self.done[call.step.index])

    def _optimised(self, call: DenoiserCall, picture: int) -> Tensor:
        """The embedding of one picture, rounded as it is kept."""
        index, method = call.step.index, self.method
        update, pivot = self.back.schedule.updates[index], self.back.latents[picture, index + 1]
        uncond, cond = call.of("uncond", [picture]), call.of("cond", [picture])
        latents = cond.latents.to(pivot) / update.scale
        start = uncond.arguments[TEXT] if index == 0 else self.done[-1][picture, None]
        null = start.detach().to(pivot).clone().requires_grad_()
        adam = torch.optim.Adam([null], lr=0.01 * max(1 - index / 100, 0))
        with torch.no_grad():
            told = self._predicted(cond)
        for _ in range(method.iterations):
            blank = self._predicted(with_null(uncond, null))
            guided = blank + method.guidance_scale * (told - blank)
            loss = (update.forward(latents, guided) - pivot).square().mean()
            (null.grad,) = torch.autograd.grad(loss, null)
            adam.step()
            if loss.item() < method.threshold + 2e-5 * index:
                break
        return null.detach() if null.dtype == torch.float64 else null.detach().half()

    def _predicted(self, call: DenoiserCall) -> Tensor:
        prediction = prediction_of(self.back.run.forward(call, "gradient"))
        own = prediction[:, : call.latents.shape[1]]  # some put out a variance behind
        return own[call.part].to(self.back.latents)


def with_null(call: DenoiserCall, null: Tensor) -> DenoiserCall:
    """``null`` [image position channel] in the unconditional rows. Raises CallError."""
    states = call.arguments[TEXT]
    if null.shape[1:] != states.shape[1:]:
        raise CallError(
            f"the picture was inverted with texts of {null.shape[1]} positions, this run has "
            f"{states.shape[1]}: give both the same max_sequence_length"
        )
    rows = [null.to(states) if b == "uncond" else states[call.rows(b)] for b in call.branches]
    return replace(call, arguments=call.arguments | {TEXT: torch.cat(rows)})
