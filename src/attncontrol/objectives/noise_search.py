"""Search for an initial noise whose first maps already have a low loss."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from attncontrol.checks.arguments import Index, NotNegative, Positive, check_fields
from attncontrol.maps.step import StepMaps

Found = TypeVar("Found")
Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images, change) -> losses [image] and gradients at x + change, for some images."""
Search = Generator[Tensor, tuple[float, Tensor], Found]
"""Yields a candidate, is sent its loss and gradient: the searches of all images go on side by
side."""


@dataclass(frozen=True)
class NoiseSearch:
    """Before the first step of text to image: x = mu + exp(v / 2) x0, by Adam on mu and v of every
    image.

    A round takes up to ``steps`` steps from a noise of its own and ends at a loss of ``objective``
    of at most ``target``; after every step (mu, v) is pulled towards 0 until KL(N(mu, e^v) || N(0,
    1)) = -1/2 mean(1 + v - mu^2 - e^v) <= ``tolerance``, so that x stays plausible noise. If none
    of ``rounds`` rounds succeeds, ``last`` more steps follow, again from mu = v = 0 and the noise
    that the best round began with; the best candidate of all is taken. The noise of a further round
    is the first one in another order, so it depends on nothing else.

    Source: InitNO (Guo et al. 2024, arXiv 2404.04650); its official code pulls back by gradient
    steps on the KL divergence, here it is done along the straight line to 0.
    """

    objective: Callable[[StepMaps], Tensor]
    target: float
    rounds: Index = 5
    steps: Index = 10
    last: Index = 50
    learning_rate: Positive = 1e-2
    tolerance: NotNegative = 1e-3

    def __post_init__(self) -> None:
        check_fields(self)

    def run(self, evaluate: Evaluate, noise: Tensor) -> Tensor:
        """The change of every image of ``noise`` [batch ...]."""
        searches = [self._of_one(of_image) for of_image in noise]
        candidates = {image: next(search) for image, search in enumerate(searches)}
        change = torch.zeros_like(noise)
        while candidates:
            for image, candidate in candidates.items():
                change[image] = candidate - noise[image]
            images = list(candidates)
            losses, gradients = evaluate(torch.tensor(images, device=noise.device), change)
            for image, loss, gradient in zip(images, losses.tolist(), gradients, strict=True):
                try:
                    candidates[image] = searches[image].send((loss, gradient))
                except StopIteration as ended:
                    change[image] = ended.value - noise[image]
                    del candidates[image]
        return change

    def _of_one(self, noise: Tensor) -> Search[Tensor]:
        best, origin, lowest = noise, noise, float("inf")
        for round_ in range(self.rounds + 1):
            final = round_ == self.rounds
            start = origin if final else _reordered(noise, round_)
            found, loss = yield from self._descend(start, self.last if final else self.steps)
            if loss < lowest:
                best, origin, lowest = found, start, loss
            if lowest <= self.target:
                break
        return best

    def _descend(self, start: Tensor, limit: int) -> Search[tuple[Tensor, float]]:
        """The best candidate of one round and its loss."""
        parts = torch.zeros(
            2, *start.shape, dtype=start.dtype, device=start.device
        ).requires_grad_()  # mu, v
        adam = torch.optim.Adam([parts], lr=self.learning_rate, eps=1e-3)
        best, lowest = start, float("inf")
        for step in range(limit + 1):
            mu, v = parts.detach()
            candidate = mu + (v / 2).exp() * start
            loss, gradient = yield candidate
            if loss < lowest:
                best, lowest = candidate, loss
            if loss <= self.target or step == limit:
                break
            parts.grad = torch.stack([gradient, gradient * (candidate - mu) / 2])
            adam.step()
            parts.data = _pulled_back(parts.detach(), self.tolerance)
        return best, lowest


def _reordered(noise: Tensor, number: int) -> Tensor:
    """The same values in another order; number 0 keeps theirs."""
    if not number:
        return noise
    order = torch.randperm(noise.numel(), generator=torch.Generator().manual_seed(number)).to(
        noise.device
    )
    return noise.flatten()[order].view_as(noise)


def _divergence(parts: Tensor) -> float:
    mu, v = parts
    return float(-0.5 * (1 + v - mu**2 - v.exp()).mean())


def _pulled_back(parts: Tensor, tolerance: float) -> Tensor:
    """The point nearest to ``parts`` on the line to 0 whose divergence is at most ``tolerance``, by
    bisection."""
    if _divergence(parts) <= tolerance:
        return parts
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(middle * parts) <= tolerance else (low, middle)
    return low * parts
