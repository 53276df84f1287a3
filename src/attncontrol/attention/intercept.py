"""Interception of attention: ``tap`` wraps the processors of some modules and hands every attention
call to a function.

The wrapped processor keeps running; only its call of ``F.scaled_dot_product_attention`` is handed
over, after projection, qk-norm and positional rotation. So one wrapper serves every diffusers
processor that uses that function.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.sites import Site
from attncontrol.errors import UnsupportedError

Handler = Callable[[AttentionCall], Tensor]


_SDPA_SIGNATURE = ("query", "key", "value", "mask", "dropout", "is_causal")


_SDPA_NAMES = {"attn_mask": "mask", "dropout_p": "dropout"}


class _Intercept(TorchFunctionMode):
    """While active, hands calls of scaled_dot_product_attention to ``handler``. Inactive inside the
    handler itself."""

    def __init__(self, site: Site, handler: Handler) -> None:
        super().__init__()
        self.site, self.handler, self.calls = site, handler, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        named = dict(zip(_SDPA_SIGNATURE, args, strict=False)) | {
            _SDPA_NAMES.get(k, k): v for k, v in kwargs.items()
        }
        self.calls += 1
        return self.handler(AttentionCall(self.site, self.calls - 1, **named))


class ControlAttnProcessor:
    """Marks wrapped processors. The concrete classes also inherit from the processor's own class,
    so ``isinstance`` holds."""

    __slots__ = ()


@functools.cache
def _control_class(processor_class: type) -> type:
    """Subclass of the processor's class with the same ``__call__`` signature: diffusers inspects it
    to choose arguments."""

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
    """Wrapper that shares the processor's attributes, so weights stay where ``state_dict`` and
    ``.to()`` look for them."""
    inner: type = getattr(type(processor), "wrapped_class", type(processor))
    control: Any = object.__new__(_control_class(inner))
    object.__setattr__(control, "__dict__", processor.__dict__)
    object.__setattr__(control, "_control", (processor, site, handler))
    return control


@contextmanager
def tap(denoiser: nn.Module, sites: Mapping[str, Site], handler: Handler) -> Iterator[None]:
    """Hands the attention calls of ``sites`` (by module path) to ``handler``, whose result replaces
    the attention output.

    Taps nest: the one installed first sees a call first and its ``call.run()`` reaches the later
    ones. On exit, also after an exception, every module has its previous processor object back.
    """
    modules = {name: denoiser.get_submodule(name) for name in sites}
    previous = {name: module.processor for name, module in modules.items()}
    for name, processor in previous.items():
        if "attn" not in inspect.signature(type(processor).__call__).parameters:
            raise UnsupportedError(
                f"the processor {type(processor).__name__} at {name} is not an attention processor"
            )
    try:
        for name, module in modules.items():
            module.processor = _wrap(previous[name], sites[name], handler)
        yield
    finally:
        for name, module in modules.items():
            module.processor = previous[name]
