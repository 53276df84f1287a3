"""Compiled modules that run eagerly while somebody looks into them: torch compiles hooks and
processors into them.

A model that is compiled as a whole lends what compiles it to its repeated blocks, so that all but
those which are looked into stay compiled, as by ``compile_repeated_blocks``. What was compiled
before is put back as it was, and torch finds it again without compiling.
"""

import inspect
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

_WHOLE = "_compiled_call_impl"


@dataclass(eq=False)
class _Held:
    """A module that runs eagerly; ``compiled`` are the attributes that were taken from it, ``lent``
    the blocks in it that are compiled meanwhile."""

    users: int = 0
    compiled: dict[str, Any] = field(default_factory=dict)
    lent: list[nn.Module] = field(default_factory=list)


@dataclass(eq=False)
class Eager:
    """Those of a denoiser, and of what pipelines put around it. They may be left in any order.

    ``lent`` is what runs in blocks of a model that was compiled as a whole, where nobody looks.
    """

    held: dict[nn.Module, _Held] = field(default_factory=dict)
    lent: dict[nn.Module, Any] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)

    @contextmanager
    def running(self, denoiser: nn.Module, names: Iterable[str]) -> Iterator[None]:
        """The denoiser and all that lies between it and the modules ``names`` run eagerly."""
        paths = [name.split(".") for name in names if name]
        around = {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
        inner = [denoiser.get_submodule(name) for name in sorted(around)]
        with self.holding([denoiser, *inner]):
            yield

    @contextmanager
    def holding(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """These run eagerly; outer ones come first."""
        modules = list(modules)
        with self.lock:
            for module in modules:
                if module not in self.held:
                    self.held[module] = held = _Held()
                    self._open(module, held)
                self.held[module].users += 1
        try:
            yield
        finally:
            with self.lock:
                for module in reversed(modules):
                    self.held[module].users -= 1
                    if not self.held[module].users:
                        self._close(module, self.held.pop(module))

    def _open(self, module: nn.Module, held: _Held) -> None:
        if module in self.lent:
            delattr(module, _WHOLE)
            return
        whole, forward = vars(module).get(_WHOLE), cast(Any, vars(module).get("forward"))
        if whole is not None:
            held.compiled[_WHOLE] = whole
            setattr(module, _WHOLE, None)
        if is_compiled(forward):  # also of the module that torch.compile puts around another
            held.compiled["forward"] = forward
            module.forward = forward._torchdynamo_orig_callable
        repeated: Any = getattr(module, "_repeated_blocks", None) or ()
        for context in filter(None, map(_context_of, held.compiled.values())):
            for block in module.modules():
                free = getattr(block, _WHOLE) is None and block not in self.lent
                if type(block).__name__ in repeated and free and block not in held.lent:
                    self.lent[block] = context(block._call_impl)
                    held.lent.append(block)
                    if block not in self.held:
                        setattr(block, _WHOLE, self.lent[block])

    def _close(self, module: nn.Module, held: _Held) -> None:
        for block in held.lent:
            del self.lent[block]
            if block not in self.held:
                delattr(block, _WHOLE)
        for name, value in held.compiled.items():
            setattr(module, name, value)
        if module in self.lent:
            setattr(module, _WHOLE, self.lent[module])


def is_compiled(function: Any) -> bool:
    """Whether torch.compile made a function."""
    return hasattr(function, "_torchdynamo_orig_callable")


def uncompiled(module: Any) -> Any:
    """The module that torch.compile was given; the same one if it was given none."""
    return getattr(module, "_orig_mod", module)


def compiled_parts(pipe: Any) -> list[nn.Module]:
    """What torch.compile put around components of a pipeline, and compiled text encoders."""
    parts = [
        (name, part)
        for name, part in getattr(pipe, "components", {}).items()
        if isinstance(part, nn.Module)
    ]
    return [part for name, part in parts
            if uncompiled(part) is not part or (name.startswith("text_encoder")
                                                and getattr(part, _WHOLE) is not None)]  # fmt: skip


def _context_of(compiled: Any) -> Any:
    """What torch.compile compiles with; None where that is not known."""
    known = inspect.getclosurevars(compiled).nonlocals if inspect.isfunction(compiled) else {}
    return known.get("self")
