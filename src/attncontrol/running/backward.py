"""Passes with a gradient: what these need of weights and kernels."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.backends import cuda


@contextmanager
def differentiable(*modules: nn.Module) -> Iterator[None]:
    """Gradients are taken inside, not in weights: activations that only those need are not kept.

    Weights are those of the forward, whatever offloading in groups puts in their place after it
    (``parameter.data = ...``), and stay on the device until then. Attention is not that of cuDNN,
    whose backward gave NaN or illegal memory accesses for FLUX in half precision (torch 2.11,
    H100).
    """
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with _CUDNN.switched_off(), saved_tensors_hooks(_held, lambda tensor: tensor):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _held(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        return tensor
    weight = tensor.detach()
    if weight.is_cuda:  # loaded in a stream of its own, which may take the memory back earlier
        weight.record_stream(torch.cuda.current_stream(weight.device))
    return weight


class _Switch:
    """One for the process, as torch has it: off while any thread needs it off."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, True

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.before = cuda.cudnn_sdp_enabled()
                cuda.enable_cudnn_sdp(False)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    cuda.enable_cudnn_sdp(self.before)


_CUDNN = _Switch()
