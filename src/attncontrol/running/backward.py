"""Passes with a gradient: what these need of weights and kernels."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.backends import cuda

from attncontrol.errors import CouplingError


@contextmanager
def differentiable(*modules: nn.Module) -> Iterator[None]:
    """Gradients are taken inside, not in weights: activations that only those need are not kept.

    Weights are those of the forward, whatever offloading in groups puts in their place after it
    (``parameter.data = ...``), and stay on the device until then. Attention is not that of cuDNN,
    whose backward gave NaN or illegal memory accesses for FLUX in half precision (torch 2.11,
    H100). Hooks for saved tensors that are open outside, such as ``save_on_cpu``, act on.
    """
    trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        with _CUDNN.switched_off(), _holding():
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _holding() -> saved_tensors_hooks:
    """Of hooks for saved tensors torch calls the innermost alone: these call those around them."""
    if (around := _hooks_around()) is None:
        return saved_tensors_hooks(_packed, _unpacked)
    pack, unpack = around
    return saved_tensors_hooks(lambda tensor: pack(_held(tensor)), unpack)


def _hooks_around() -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]] | None:
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return None if top is None else top(False)  # older versions do not tell


def _packed(tensor: Tensor) -> tuple[Tensor, int]:
    held = _held(tensor)
    return held, held._version


def _unpacked(packed: tuple[Tensor, int]) -> Tensor:
    """Raises CouplingError, as torch does an error where there are no hooks."""
    held, version = packed
    if held._version != version:
        raise CouplingError(
            f"a tensor of shape {[*held.shape]} that the gradient needs was changed in place after "
            "it was used, by an edit or the model: change a copy of it"
        )
    return held


def _held(tensor: Tensor) -> Tensor:
    """Detached: a function that holds its own output is not freed until its backward runs, which it
    does not where a loss looks at an earlier layer, or fails."""
    held = tensor.detach()
    if isinstance(tensor, nn.Parameter) and held.is_cuda:
        # loaded in a stream of its own, which may take the memory back earlier
        held.record_stream(torch.cuda.current_stream(held.device))
    return held


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
