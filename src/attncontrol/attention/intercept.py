"""Interception of attention: a wrapped processor keeps running, but its call of
``F.scaled_dot_product_attention`` is handed over, after projection, qk-norm and positional
rotation.

So one wrapper serves every diffusers processor that uses that function. Others are made to, see
``kernels``.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attncontrol.attention.by_row import in_one_call, runs_by_row
from attncontrol.attention.call import AttentionCall, call_of
from attncontrol.attention.edit import Editor, Seen
from attncontrol.attention.kernels import OwnKernel, with_torch_kernel
from attncontrol.attention.moment import Moment
from attncontrol.attention.sites import Site
from attncontrol.errors import BackendError, EditError

Handler = Callable[[AttentionCall], Tensor]
Listener = Callable[[AttentionCall, Moment], Tensor]
"""Looks at a call, changes nothing and returns ``call.run()``, or the same computed otherwise."""


def attend(
    call: AttentionCall, now: Moment, editors: Sequence[Editor], listeners: Sequence[Listener]
) -> Tensor:
    """The output of a call after the edits, outermost first; listeners see what these made of it.

    The listeners of an edit that returned an output see the call which that edit was given, or the
    one of ``Seen``, and its output. Runs within an edit reach the edits after it, no listener.
    """
    heard = functools.partial(_heard, now=now, listeners=listeners)
    return _edited(call, now, editors, heard)


def _edited(
    call: AttentionCall, now: Moment, editors: Sequence[Editor], end: Callable[..., Tensor]
) -> Tensor:
    if not editors:
        return end(call)
    editor, *inner = editors
    below = functools.partial(_edited, now=now, editors=inner, end=AttentionCall.kernel)
    result = editor(replace(call, below=below if inner else None), now)
    _require_attention(result, call, editor)
    if isinstance(result, AttentionCall):
        return _edited(result, now, inner, end)
    seen = result if isinstance(result, Seen) else Seen(result, call)
    if end is not AttentionCall.kernel:
        end(seen.call, output=seen.output)
    return seen.output


def _heard(
    call: AttentionCall, now: Moment, listeners: Sequence[Listener], output: Tensor | None = None
) -> Tensor:
    """``output`` is that of an edit, else the kernel's."""
    if not listeners:
        return call.kernel() if output is None else output
    if now.riders:
        return _heard_without_riders(call, now, listeners, output)
    listener, *others = listeners
    below = functools.partial(_heard, now=now, listeners=others, output=output)
    return listener(replace(call, below=below if others or output is not None else None), now)


def _heard_without_riders(
    call: AttentionCall, now: Moment, listeners: Sequence[Listener], output: Tensor | None
) -> Tensor:
    """Images that ride along as sources are nothing that listeners asked for; they come last."""
    count = len(now.images) - now.riders
    own = replace(now, images=now.images[:count], riders=0, layout=now.layout.rows(slice(count)))
    rows, rest = slice(count), slice(count, None)
    seen = _heard(call.rows(rows), own, listeners, None if output is None else output[rows])
    return torch.cat([seen, call.rows(rest).kernel() if output is None else output[rest]])


def _require_attention(result: Any, call: AttentionCall, editor: Any) -> None:
    wanted = (*call.query.shape[:3], call.value.shape[-1])
    if isinstance(result, Seen):
        _require_attention(result.call, call, editor)
        result = result.output
    if isinstance(result, AttentionCall):
        if result.query.shape == call.query.shape and result.value.shape[-1] == wanted[-1]:
            return
        given = f"a call with queries {tuple(result.query.shape)}"
    elif isinstance(result, Tensor):
        if tuple(result.shape) == wanted:
            return
        given = f"an output of shape {tuple(result.shape)}"
    else:
        given = f"{type(result).__name__}"
    raise EditError(
        f"the edit {editor!r} returned {given} at {call.site.name}; return the changed call with "
        f"queries {tuple(call.query.shape)}, or an output of shape {wanted}"
    )


class _Intercept(TorchFunctionMode):
    """While active, hands one scaled_dot_product_attention to ``handler``, the first after as many
    as come ``before`` it; others, such as those of IP-Adapters, are not the module's own. Inactive
    inside the handler itself."""

    def __init__(self, site: Site, handler: Handler, backend: Any, before: int = 0) -> None:
        super().__init__()
        self.site, self.handler, self.backend, self.calls = site, handler, backend, -before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        self.calls += 1
        if self.calls != 1:
            return func(*args, **kwargs)
        call = call_of(self.site, args, kwargs)
        if self.backend is not None:
            call = replace(call, backend=OwnKernel(self.backend, call))
        return self.handler(call)


class ControlAttnProcessor:
    """Marks wrapped processors. The concrete classes also inherit from the processor's own class,
    so ``isinstance`` holds."""

    __slots__ = ()
    _control: tuple[Any, Site, Handler]

    @property
    def wrapped(self) -> Any:
        """The processor itself."""
        return self._control[0]

    @property
    def handler(self) -> Handler:
        """What its attention is handed to."""
        return self._control[2]


@functools.cache
def _control_class(processor_class: type) -> type:
    """Subclass of the processor's class with the same ``__call__`` signature: diffusers inspects it
    in every call, to choose arguments."""

    @functools.wraps(processor_class.__call__)
    def call(self: Any, attn: nn.Module, *args: Any, **kwargs: Any) -> Any:
        wrapped, site, handler = self._control
        if runs_by_row(wrapped):
            return in_one_call(lambda: wrapped(attn, *args, **kwargs), site, handler)
        processor, backend = with_torch_kernel(wrapped, attn)
        if parts := kwargs.get("segments"):  # of the text, before the picture's turn: torch's
            backend = None  # kernel computes all of them, whatever is set (Qwen-Image 2.1)
        before = site.before + len(parts or ())
        with _Intercept(site, handler, backend, before) as mode:
            output = processor(attn, *args, **kwargs)
        if mode.calls < 1 and not kwargs.get("all_perturbed"):  # which leaves attention out (LTX-2)
            raise BackendError(
                f"attention at {site.name} ran without torch's scaled_dot_product_attention "
                f"({type(wrapped).__name__}), in a way that is not known; choose other sites by "
                "where=..., or a processor of diffusers "
                "(pipe.unet.set_attn_processor(AttnProcessor2_0()))"
            )
        return output

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._control[0], memo)  # a copied model is not watched

    vars(call)["__signature__"] = inspect.signature(processor_class.__call__)  # found at once
    body = {"__slots__": ("_control",), "__call__": call, "__deepcopy__": deepcopy}
    body["wrapped_class"] = processor_class
    return type(f"Control{processor_class.__name__}", (ControlAttnProcessor, processor_class), body)


def wrap(processor: Any, site: Site, handler: Handler) -> Any:
    """Wrapper that shares the processor's attributes, so weights stay where ``state_dict`` and
    ``.to()`` look for them. Raises BackendError for what is no attention processor."""
    if "attn" not in inspect.signature(type(processor).__call__).parameters:
        raise BackendError(
            f"the processor {type(processor).__name__} at {site.name} is no attention processor"
        )
    inner: type = getattr(type(processor), "wrapped_class", type(processor))
    control: Any = object.__new__(_control_class(inner))
    object.__setattr__(control, "__dict__", processor.__dict__)
    object.__setattr__(control, "_control", (processor, site, handler))
    return control
