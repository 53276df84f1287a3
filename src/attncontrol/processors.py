"""Interception of attention: ``tap`` wraps the processors of some modules and hands every attention call to a function.

The wrapped processor keeps running; only its call of ``F.scaled_dot_product_attention`` is handed over, after projection,
qk-norm and positional rotation. So one wrapper serves every diffusers processor that uses that function.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from attncontrol.axes import Key, Mask, Probabilities, Query
from attncontrol.errors import UnsupportedError
from attncontrol.sites import Site


@dataclass(frozen=True)
class AttentionCall:
    """One execution of a site. ``index`` counts the calls of the site within one forward of its module.

    ``normaliser`` is the logarithm of the sum over keys of exp(logits) [batch heads query], where it is known.
    """

    site: Site
    index: int
    query: Query
    key: Key
    value: Key
    mask: Mask | None = None
    dropout: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    normaliser: Tensor | None = None

    def run(self) -> Tensor:
        """The attention output, by the kernel that torch chooses."""
        return F.scaled_dot_product_attention(
            self.query,
            self.key,
            self.value,
            self.mask,
            self.dropout,
            self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )

    def ran(self) -> "tuple[Tensor, AttentionCall]":
        """run(), and the call with its normaliser where the same kernel gives it: long keys without mask or gradient on a CPU."""
        simple = self.mask is None and not (self.dropout or self.is_causal or self.enable_gqa or torch.is_grad_enabled())
        inputs = (self.query, self.key, self.value)
        alone = not _get_current_function_mode_stack()  # else run() must reach the handlers of other contexts
        worth = simple and alone and self.key.shape[2] > _SHORT and self.query.device.type == "cpu"
        if not (worth and torch._fused_sdp_choice(*inputs, scale=self.scale) == SDPBackend.FLASH_ATTENTION.value):
            return self.run(), self
        output, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*inputs, scale=self.scale)
        return output, replace(self, normaliser=normaliser)

    def of_heads(self, heads: Sequence[int]) -> "AttentionCall":
        """The call restricted to some heads."""
        at = list(heads)
        mask = self.mask[:, at] if self.mask is not None and self.mask.ndim == 4 and self.mask.shape[1] > 1 else self.mask
        return replace(self, query=self.query[:, at], key=self.key[:, at], value=self.value[:, at], mask=mask, normaliser=None)

    def of_queries(self, queries: slice | Tensor) -> "AttentionCall":
        """The call restricted to some queries."""
        mask = self.mask if self.mask is None or self.mask.shape[-2] == 1 else self.mask[..., queries, :]
        normaliser = None if self.normaliser is None else self.normaliser[:, :, queries]
        return replace(self, query=self.query[:, :, queries], mask=mask, normaliser=normaliser)

    def rows(self, rows: slice | Tensor) -> "AttentionCall":
        """The call restricted to some rows of the batch."""
        mask = self.mask[rows] if self.mask is not None and self.mask.ndim == 4 and self.mask.shape[0] > 1 else self.mask
        normaliser = None if self.normaliser is None else self.normaliser[rows]
        return replace(self, query=self.query[rows], key=self.key[rows], value=self.value[rows], mask=mask, normaliser=normaliser)

    def probabilities(self) -> Probabilities:
        """softmax(scale * query @ key^T + mask) over keys, in float32 or wider. Rows whose keys are all masked are zero.

        Materialises query x key values per head: meant for short key sequences (text).
        """
        if self.is_causal or self.enable_gqa:
            raise UnsupportedError(f"probabilities of a causal or grouped-query call at {self.site.name} are not implemented")
        logits = self._logits(self.key)
        if self.mask is None:
            return logits.softmax(-1)
        if self.mask.dtype == torch.bool:
            logits = logits.masked_fill(~self.mask, torch.finfo(logits.dtype).min)
            return logits.softmax(-1) * self.mask.any(-1, keepdim=True)
        return (logits + self.mask).softmax(-1)

    @property
    def factor(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return float(self.query.shape[-1] ** -0.5) if self.scale is None else self.scale

    def tempered(self, factor: float) -> "AttentionCall":
        """The call with all logits multiplied, masks of numbers included."""
        soft = self.mask is not None and self.mask.dtype != torch.bool
        mask = self.mask * factor if soft and self.mask is not None else self.mask
        return replace(self, scale=self.factor * factor, mask=mask, normaliser=None)

    def _logits(self, key: Key) -> Tensor:
        return _at_least_single((self.query * self.factor) @ key.transpose(-1, -2))

    def mass(self, columns: Tensor, queries: slice) -> Probabilities:
        """probabilities()[queries] @ columns, for 0/1 ``columns`` [batch key column]: mass on groups of keys, exact.

        Where the keys outnumber the columns widely, the softmax is not formed. With the normaliser z it is exp(logits - z) of the
        marked keys; else the attention output for values that are these columns is the same product, in memory of queries x head
        width, with gradients from the kernel.
        """
        part = self.of_queries(queries)
        if part.normaliser is not None:
            marked = columns.amax((0, 2)).nonzero()[:, 0]
            probabilities = (part._logits(self.key[:, :, marked]) - part.normaliser[..., None]).exp()
            return probabilities @ columns[:, None, marked].to(probabilities)
        if self.key.shape[2] <= _SHORT and not (self.is_causal or self.enable_gqa):
            probabilities = part.probabilities()
            return probabilities @ columns[:, None].to(probabilities)
        width = self.value.shape[-1]
        outputs = []
        for chunk in columns.to(self.value).split(width, -1):
            value = F.pad(chunk, (0, width - chunk.shape[-1]))[:, None].expand(-1, self.value.shape[1], -1, -1)
            outputs.append(replace(part, value=value.contiguous()).run()[..., : chunk.shape[-1]])
        return _at_least_single(torch.cat(outputs, -1))


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


_SHORT = 512  # keys up to which the explicit softmax is faster (text); measured in tests/perf
Handler = Callable[[AttentionCall], Tensor]
_SDPA_SIGNATURE = ("query", "key", "value", "mask", "dropout", "is_causal")
_SDPA_NAMES = {"attn_mask": "mask", "dropout_p": "dropout"}


class _Intercept(TorchFunctionMode):
    """While active, hands calls of scaled_dot_product_attention to ``handler``. Inactive inside the handler itself."""

    def __init__(self, site: Site, handler: Handler) -> None:
        super().__init__()
        self.site, self.handler, self.calls = site, handler, 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        named = dict(zip(_SDPA_SIGNATURE, args, strict=False)) | {_SDPA_NAMES.get(k, k): v for k, v in kwargs.items()}
        self.calls += 1
        return self.handler(AttentionCall(self.site, self.calls - 1, **named))


class ControlAttnProcessor:
    """Marks wrapped processors. The concrete classes also inherit from the processor's own class, so ``isinstance`` holds."""

    __slots__ = ()


@functools.cache
def _control_class(processor_class: type) -> type:
    """Subclass of the processor's class with the same ``__call__`` signature: diffusers inspects it to choose arguments."""

    @functools.wraps(processor_class.__call__)
    def call(self: Any, attn: nn.Module, *args: Any, **kwargs: Any) -> Any:
        wrapped, site, handler = self._control
        with _Intercept(site, handler) as mode:
            output = wrapped(attn, *args, **kwargs)
        if not mode.calls:
            raise UnsupportedError(
                f"attention at {site.name} ran without torch's scaled_dot_product_attention ({type(wrapped).__name__}); "
                "switch attention slicing, eager processors and third-party backends off "
                "(pipe.unet.set_attn_processor(AttnProcessor2_0()), pipe.disable_attention_slicing())"
            )
        return output

    body = {"__slots__": ("_control",), "__call__": call, "wrapped_class": processor_class}
    return type(f"Control{processor_class.__name__}", (ControlAttnProcessor, processor_class), body)


def _wrap(processor: Any, site: Site, handler: Handler) -> Any:
    """Wrapper that shares the processor's attributes, so weights stay where ``state_dict`` and ``.to()`` look for them."""
    inner: type = getattr(type(processor), "wrapped_class", type(processor))
    control: Any = object.__new__(_control_class(inner))
    object.__setattr__(control, "__dict__", processor.__dict__)
    object.__setattr__(control, "_control", (processor, site, handler))
    return control


@contextmanager
def tap(denoiser: nn.Module, sites: Mapping[str, Site], handler: Handler) -> Iterator[None]:
    """Hands the attention calls of ``sites`` (by module path) to ``handler``, whose result replaces the attention output.

    Taps nest: the one installed first sees a call first and its ``call.run()`` reaches the later ones. On exit, also after an
    exception, every module has its previous processor object back.
    """
    modules = {name: denoiser.get_submodule(name) for name in sites}
    previous = {name: module.processor for name, module in modules.items()}
    for name, processor in previous.items():
        if "attn" not in inspect.signature(type(processor).__call__).parameters:
            raise UnsupportedError(f"the processor {type(processor).__name__} at {name} is not an attention processor")
    try:
        for name, module in modules.items():
            module.processor = _wrap(previous[name], sites[name], handler)
        yield
    finally:
        for name, module in modules.items():
            module.processor = previous[name]
