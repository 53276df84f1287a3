"""Which kernel computes attention, and how processors that do not call torch's are made to.

diffusers has a registry of kernels (flash, sage, flex ...) that processors dispatch to. Attention
that goes there is seen as torch's, and the kernel still computes the calls that it can take.
Eager, sliced and xformers processors have a twin that calls torch's kernel instead of theirs.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attncontrol.attention.call import AttentionCall

_TWINS = {
    "AttnProcessor": "AttnProcessor2_0",
    "SlicedAttnProcessor": "AttnProcessor2_0",
    "XFormersAttnProcessor": "AttnProcessor2_0",
    "AttnAddedKVProcessor": "AttnAddedKVProcessor2_0",
    "SlicedAttnAddedKVProcessor": "AttnAddedKVProcessor2_0",
    "XFormersAttnAddedKVProcessor": "AttnAddedKVProcessor2_0",
    "CustomDiffusionAttnProcessor": "CustomDiffusionAttnProcessor2_0",
    "CustomDiffusionXFormersAttnProcessor": "CustomDiffusionAttnProcessor2_0",
    "IPAdapterAttnProcessor": "IPAdapterAttnProcessor2_0",
    "IPAdapterXFormersAttnProcessor": "IPAdapterAttnProcessor2_0",
    "XFormersJointAttnProcessor": "JointAttnProcessor2_0",
}
"""Classes of diffusers with the same mathematics, one without and one with torch's kernel."""


def with_torch_kernel(processor: Any, attn: Any) -> tuple[Any, Any]:
    """A processor of the same mathematics and weights that calls torch's kernel, and the backend of
    diffusers that the processor itself would have dispatched to, None if none.

    The processor itself, unchanged, where it calls torch's kernel or nothing better is known.
    """
    twin = twin_of(processor, attn)
    if twin is not None:
        return _of_class(twin, processor, {}), None
    backend = backend_of(processor)
    if backend is None:
        return processor, None
    native = {"_attention_backend": _dispatch().AttentionBackendName.NATIVE}
    return _of_class(type(processor), processor, native), backend


def twin_of(processor: Any, attn: Any) -> type | None:
    """The class with torch's kernel of an eager, sliced or xformers processor; None for others, and
    for attention without the usual scale, which such classes do not know."""
    twin = _twins().get(getattr(type(processor), "wrapped_class", type(processor)))
    return twin if getattr(attn, "scale_qk", True) else None


def backend_of(processor: Any) -> Any:
    """The backend of diffusers that a processor dispatches to; None for torch's kernel, and for
    processors that do not dispatch."""
    if not hasattr(processor, "_attention_backend"):
        return None
    dispatch = _dispatch()
    backend = processor._attention_backend or dispatch._AttentionBackendRegistry._active_backend
    return None if backend == dispatch.AttentionBackendName.NATIVE else backend


@dataclass(eq=False)
class OwnKernel:
    """A kernel of diffusers' registry, for calls of the form of the ``given`` one.

    ``left`` says whether a call came that it could not take: kernels are tuned to sequences and
    heads, and many ignore a mask without a word. Gradients are torch's, as many have none.
    """

    backend: Any
    given: AttentionCall
    left: bool = False

    def __call__(self, call: AttentionCall) -> Tensor | None:
        inputs = call.query, call.key, call.value
        if torch.is_grad_enabled() and any(each.requires_grad for each in inputs):
            return None
        if not self._fits(call):
            self.left = True
            return None
        query, key, value = (each.transpose(1, 2) for each in inputs)
        # a custom key of the registry is known as the active backend alone
        known = isinstance(self.backend, _dispatch().AttentionBackendName)
        output = _dispatch().dispatch_attention_fn(
            query, key, value, call.mask, call.dropout, call.is_causal, call.scale,
            call.enable_gqa, backend=self.backend if known else None,
        )  # fmt: skip
        return output.transpose(1, 2)

    def _fits(self, call: AttentionCall) -> bool:
        """Rows of the batch may be others."""
        given = self.given
        pairs = zip(_shapes(call), _shapes(given), strict=True)
        same = all(one[1:] == other[1:] for one, other in pairs)
        return same and call.heads is None and call.mask is given.mask and call.scale == given.scale


def _shapes(call: AttentionCall) -> tuple[torch.Size, ...]:
    return call.query.shape, call.key.shape, call.value.shape


def _of_class(cls: type, processor: Any, changes: dict[str, Any]) -> Any:
    """A processor with the attributes of another one, weights included, but for ``changes``."""
    other: Any = object.__new__(cls)
    object.__setattr__(other, "__dict__", vars(processor) | changes)
    return other


@functools.cache
def _twins() -> dict[type, type]:
    from diffusers.models import attention_processor as known  # costs a second

    pairs = [(getattr(known, one, None), getattr(known, other)) for one, other in _TWINS.items()]
    return {one: other for one, other in pairs if one is not None}


@functools.cache
def _dispatch() -> Any:
    from diffusers.models import attention_dispatch

    return attention_dispatch
