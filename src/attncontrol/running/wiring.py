"""What is installed on a denoiser, whoever uses it: wrapped processors, and whose pass is running.

Pipelines may share a denoiser, and threads may run different ones. The last to leave a processor
takes its wrapper off, in whatever order contexts close.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attncontrol.attention.call import AttentionCall, Layout
from attncontrol.attention.edit import Editor
from attncontrol.attention.intercept import ControlAttnProcessor, Listener, attend, wrap
from attncontrol.attention.kernels import OwnKernel
from attncontrol.attention.moment import Moment, Purpose
from attncontrol.attention.ordered import in_order
from attncontrol.attention.sites import Site
from attncontrol.errors import CouplingError
from attncontrol.running.cache import Caches
from attncontrol.running.calls import DenoiserCall
from attncontrol.running.eager import Eager
from attncontrol.running.further import hidden

Sites = Mapping[str, Site]


@dataclass(frozen=True, eq=False)
class Pass:
    """One run of the denoiser: whose rows it has, why it runs, and what acts on its attention.

    ``editors`` and ``listeners`` come with the sites they belong to. The last ``riders`` images are
    sources of edits alone. ``owner`` are the contexts of the pipeline it is made for; ``left`` gets
    the sites whose own kernel could not compute what edits made of a call.
    """

    call: DenoiserCall
    purpose: Purpose
    layout: Callable[[Site], Layout]
    editors: tuple[tuple[Sites, Editor], ...] = ()
    listeners: tuple[tuple[Sites, Listener], ...] = ()
    riders: int = 0
    owner: object = None
    left: dict[str, Any] = field(default_factory=dict)

    def attend(self, call: AttentionCall) -> Tensor:
        """The output of an attention call of this pass."""
        name = call.site.name
        editors = [editor for sites, editor in self.editors if name in sites]
        listeners = [listener for sites, listener in self.listeners if name in sites]
        if not editors and not listeners and not self.call.further:
            return call.kernel()
        own, (call, now) = call.backend, self._found(call)
        output = attend(call, now, editors, listeners)
        if isinstance(own, OwnKernel) and own.left:
            self.left[name] = own.backend
        order = now.layout.order
        return output if order is None else output[:, :, order.argsort().to(output.device)]

    def _found(self, call: AttentionCall) -> tuple[AttentionCall, Moment]:
        """The call without further texts, and its moment."""
        of = self.call
        if len(call.query) != len(of.branches) * len(of.images):
            raise CouplingError(
                f"{call.site.name} has {len(call.query)} rows, but {len(of.images)} images in the "
                f"branches {of.branches} were expected"
            )
        layout = self.layout(call.site)
        if of.further:
            call, layout = hidden(call, layout, of.further)
        if layout.order is not None:
            call = in_order(call, layout.order)
        now = Moment(of.step, layout, self.purpose, of.branches, of.images, of.text, self.riders)
        return call, now


@dataclass(eq=False)
class _Wrapped:
    """The wrapper of one module's processor, and how many use it."""

    module: Any
    previous: Any
    wrapper: Any
    users: int = 0


@dataclass(eq=False)
class Wiring:
    """``passes`` of every thread, innermost last; None stands for one that nobody watches."""

    wrapped: dict[str, _Wrapped] = field(default_factory=dict)
    eager: Eager = field(default_factory=Eager)
    caches: Caches = field(default_factory=Caches)
    passes: dict[int, list[Pass | None]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)

    @contextmanager
    def wrapping(self, denoiser: nn.Module, sites: Sites) -> Iterator[None]:
        """The attention of ``sites`` reaches the pass that is running, until the last leaves."""
        with self.eager.running(denoiser, sites), self._replacing(denoiser, sites):
            yield

    @contextmanager
    def _replacing(self, denoiser: nn.Module, sites: Sites) -> Iterator[None]:
        with self.lock:
            new = [site for name, site in sites.items() if name not in self.wrapped]
            self.wrapped |= {site.name: self._prepared(denoiser, site) for site in new}
            for name in sites:
                place = self.wrapped[name]
                place.users += 1
                if place.users == 1:
                    place.module.processor = place.wrapper
        try:
            yield
        finally:
            with self.lock:
                for name in sites:
                    self._leave(name)

    def _prepared(self, denoiser: nn.Module, site: Site) -> _Wrapped:
        module: Any = denoiser.get_submodule(site.name)
        inner = module.processor
        while isinstance(inner, ControlAttnProcessor) and inner.handler == self._attend:
            inner = inner.wrapped  # a wrapper of before, which somebody has put back
        return _Wrapped(module, module.processor, wrap(inner, site, self._attend))

    def _leave(self, name: str) -> None:
        place = self.wrapped[name]
        place.users -= 1
        if not place.users:
            del self.wrapped[name]
            if place.module.processor is place.wrapper:  # else the user has put in another one
                place.module.processor = place.previous

    def require_installed(self, sites: Sites) -> None:
        """Raises CouplingError where somebody has replaced a wrapped processor."""
        for name in sites:
            place = self.wrapped[name]
            if place.module.processor is not place.wrapper:
                raise CouplingError(
                    f"the attention processor at {name} was replaced inside the block "
                    f"({type(place.module.processor).__name__}), so its attention is not seen; set "
                    "processors, slicing and adapters before the block"
                )

    @contextmanager
    def running(self, one: Pass) -> Iterator[None]:
        """The pass that attention calls of this thread belong to."""
        stack = self.begin(one)
        try:
            yield
        finally:
            stack.remove(one)
            if not stack:
                self.end(threading.get_ident())

    def begin(self, one: Pass | None, *, outermost: bool = False) -> list[Pass | None]:
        """As ``running``, without an end; ``outermost`` forgets passes that never ended."""
        stack = self.passes.setdefault(threading.get_ident(), [])
        if outermost:
            stack.clear()
        stack.append(one)
        return stack

    def end(self, thread: int) -> None:
        """No pass runs in a thread."""
        self.passes.pop(thread, None)

    @property
    def current(self) -> Pass | None:
        """The pass that is running in this thread; None if nobody watches."""
        stack = self.passes.get(threading.get_ident())
        return stack[-1] if stack else None

    def _attend(self, call: AttentionCall) -> Tensor:
        stack = self.passes.get(threading.get_ident()) or self._backward()
        one = stack[-1] if stack else None
        return call.kernel() if one is None else one.attend(call)

    def _backward(self) -> list[Pass | None]:
        """Gradient checkpointing computes blocks again in threads of autograd."""
        passes = [one for stack in list(self.passes.values()) for one in stack if one]
        return [one for one in passes if one.purpose == "gradient" and torch.is_grad_enabled()]


_WIRINGS: WeakKeyDictionary[nn.Module, Wiring] = WeakKeyDictionary()


def wiring_of(denoiser: nn.Module) -> Wiring:
    """That of a denoiser, the same for all pipelines that share it."""
    return _WIRINGS.setdefault(denoiser, Wiring())
