"""Quantised weights: whether anything has a gradient through them, tried on one layer of each
kind."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from attncontrol.errors import ModelError

_ROWS = 16
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def require_gradients_through(denoiser: nn.Module) -> None:
    """Raises ModelError for layers that round what goes into them, as dynamic quantisation of
    activations does: nothing has a gradient through these, and no error would say so."""
    with torch.inference_mode(False), torch.enable_grad():
        for name, layer in _quantised(denoiser):
            if _cuts(layer):
                raise ModelError(
                    f"{name} ({type(layer).__name__}) rounds what goes into it (quantised "
                    "activations), so no loss has a gradient through it: quantise the weights "
                    "alone, such as torchao's Int8WeightOnlyConfig; record, edit and perturb work"
                )


def _quantised(denoiser: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers that are no plain nn.Linear, one of each kind; those without data, which offloading
    has taken away, cannot be tried."""
    kinds = set()
    for name, layer in denoiser.named_modules():
        weight = getattr(layer, "weight", None)
        if not hasattr(layer, "in_features") or not isinstance(weight, Tensor) or weight.is_meta:
            continue
        activations = bool(getattr(weight, "act_quant_kwargs", None))  # of torchao's tensors
        kind = (type(layer), type(weight), type(weight.data), activations)
        if kind not in kinds and kind != (nn.Linear, nn.Parameter, Tensor, False):
            kinds.add(kind)
            yield name, layer


def _cuts(layer: Any) -> bool:
    """Whether no gradient goes through; False where the layer does not run by itself."""
    size = _ROWS, layer.in_features
    given = torch.linspace(-1, 1, size[0] * size[1], device=layer.weight.device).view(size)
    for dtype in _DTYPES:  # that of what it computes is not always that of its weights
        with suppress(RuntimeError, TypeError, ValueError):
            given = given.detach().to(dtype).requires_grad_()
            output = layer(given)
            if not output.requires_grad:
                return True
            (gradient,) = torch.autograd.grad(output.float().square().sum(), given)
            return not gradient.any()
    return False
