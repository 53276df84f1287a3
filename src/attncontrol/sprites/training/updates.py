"""Training on one device: Muon and AdamW, averaged weights; on CUDA an update is one graph."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attncontrol.sprites.training.muon import Muon, block_matrices

WARM_STEPS = 100
COOL = 0.5  # share of the training over which the rates fall
EVERY = 10  # updates between changes of the rates and additions to the average
REPORTS = 10


def rate_factor(progress: float, step: int) -> float:
    """Linear from 0 to 1 over the first steps, 1, then linear to 0 over the last half."""
    return min(1.0, (1 - progress) / COOL) * min(1.0, (step + 1) / WARM_STEPS)


class Updates:
    """Updates of a model by Muon for the matrices of blocks, and AdamW at half its rate for the
    rest.

    ``loss()`` gives, for a batch that it draws, the loss and two terms to look at, whose running
    means are ``seen``. ``average`` is that of the weights. Rates are 0 until they are set.
    """

    def __init__(self, model: nn.Module, loss: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self.loss = loss
        self.weights: list[Tensor] = list(model.parameters())
        self.device = self.weights[0].device
        self.average = [weight.detach().clone() for weight in self.weights]
        self.seen = torch.zeros(2, device=self.device)
        self.rates = [torch.zeros((), device=self.device) for _ in range(2)]
        matrices = block_matrices(model)
        known = {id(matrix) for matrix in matrices}
        adamw = torch.optim.AdamW(
            [weight for weight in self.weights if id(weight) not in known],
            lr=self.rates[1],
            weight_decay=0.01,
            betas=(0.9, 0.99),
            fused=True,
            capturable=self.device.type == "cuda",
        )
        self.optimizers = (Muon(matrices, self.rates[0]), adamw)

    def set_rate(self, lr: float) -> None:
        self.rates[0].fill_(lr)
        self.rates[1].fill_(lr / 2)

    def update(self) -> None:
        """One update, without waiting for the device."""
        for weight in self.weights:
            weight.grad = None
        loss, seen = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.seen.lerp_(seen.detach(), 0.02)
        for optimizer in self.optimizers:
            optimizer.step()

    def repeated(self) -> Callable[[], None]:
        """``update`` as a CUDA graph, after three runs on a side stream; itself on a CPU."""
        if self.device.type != "cuda":
            return self.update
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.update()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.update()
        return graph.replay

    @torch.no_grad()
    def add_to_average(self, step: int) -> None:
        torch._foreach_lerp_(self.average, self.weights, 1 - min(0.98, step / (step + 100)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the averaged weights in place of the last ones."""
        last = [weight.detach().clone() for weight in self.weights]
        self._load(self.average)
        try:
            yield
        finally:
            self._load(last)

    @torch.no_grad()
    def _load(self, weights: list[Tensor]) -> None:
        torch._foreach_copy_(self.weights, weights)

    def run(
        self, *, lr: float, steps: int, seconds: float | None, report: Callable[[int], None]
    ) -> None:
        """``steps`` updates, or as many as there is time for in ``seconds``. ``report(step)`` ten
        times, with the averaged weights, which are in the model when the function returns."""
        update, begin = self.repeated(), time.monotonic()
        step, progress, reported = 0, 0.0, 0
        while progress < 1:
            self.set_rate(lr * rate_factor(progress, step))
            for _ in range(EVERY):
                update()
            step += EVERY
            self.add_to_average(step)
            if seconds is None:
                progress = step / steps
            else:
                self.rates[0].item()  # waits for what was only launched
                progress = (time.monotonic() - begin) / seconds
            if int(progress * REPORTS) > reported:
                reported = int(progress * REPORTS)
                with self.averaged():
                    report(step)
        self._load(self.average)
