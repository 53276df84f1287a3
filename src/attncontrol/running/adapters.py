"""The scale of adapters (LoRA) in a call of the denoiser."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

_NAMES = ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs")


@contextmanager
def scaled_adapters(denoiser: nn.Module, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of a call without the scale of adapters, which holds in the block instead.

    diffusers takes it back at the end of the forward, before gradient checkpointing computes blocks
    again: the gradient would be that of scale 1. Without checkpointing nothing is changed.
    """
    own, scale = dict(arguments), 1.0
    if getattr(denoiser, "is_gradient_checkpointing", False):
        for name in _NAMES:
            given = own.get(name)
            if given and "scale" in given:
                own[name] = dict(given)
                scale *= own[name].pop("scale")
    adapted: list[Any] = [
        each for each in denoiser.modules() if scale != 1 and hasattr(each, "scale_layer")
    ]
    before = [dict(each.scaling) for each in adapted]
    for each in adapted:
        each.scale_layer(scale)
    try:
        yield own
    finally:
        for each, scaling in zip(adapted, before, strict=True):
            each.scaling.update(scaling)
