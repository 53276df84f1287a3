"""Caches of diffusers (first block, pyramid attention broadcast, TaylorSeer ...): hooks that take
what blocks put out from an earlier step instead of computing it."""

import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_MODULES = (
    "faster_cache", "first_block_cache", "mag_cache", "pyramid_attention_broadcast", "sea_cache",
    "taylorseer_cache", "text_kv_cache",
)  # fmt: skip


def cache_hooks(denoiser: nn.Module) -> list[Any]:
    """The hooks of its caches, however they were put there; other hooks are not among them."""
    registries = [vars(module).get("_diffusers_hook") for module in denoiser.modules()]
    hooks = [hook for each in registries if each is not None for hook in each.hooks.values()]
    return [hook for hook in hooks if type(hook).__module__.rpartition(".")[2] in _MODULES]


def drops_rows(denoiser: nn.Module) -> bool:
    """Whether a cache leaves out the unconditional rows of a batch (FasterCache)."""
    return any("FasterCacheDenoiser" in type(hook).__name__ for hook in cache_hooks(denoiser))


def tell_skipped(
    denoiser: nn.Module,
    ran: Mapping[int, set[str]],
    running: Mapping[int, Iterable[str]],
    total: int,
) -> None:
    """Warns of recorded steps in which a cache left attention out; ``ran`` are the sites of each
    step that computed any, ``running`` those of the denoiser that ran in it."""
    every, steps = set().union(*ran.values()), list(running)
    skipped = [step for step in steps if ran.get(step, set()) != every.intersection(running[step])]
    if skipped and cache_hooks(denoiser):
        none = [step for step in skipped if step not in ran]
        warnings.warn(
            f"a cache of the denoiser left attention out in steps {skipped} of {total}, at all "
            f"recorded sites in {none or 'none of them'}: maps are of the steps in which a site "
            "ran",
            stacklevel=4,
        )


@dataclass(eq=False)
class Caches:
    """Those of a denoiser that are passed by: modules compute, and what the caches hold stays as it
    is. ``before`` are the functions of each hook, ``users`` how many need that."""

    before: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    users: int = 0
    lock: Any = field(default_factory=threading.RLock)

    @contextmanager
    def off(self, denoiser: nn.Module) -> Iterator[None]:
        with self.lock:
            if not self.users:
                self.before = [self._pass_by(hook.fn_ref) for hook in cache_hooks(denoiser)]
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                while self.before and not self.users:
                    functions, before = self.before.pop()
                    for name, value in before.items():
                        setattr(functions, name, value)

    def _pass_by(self, functions: Any) -> tuple[Any, dict[str, Any]]:
        names = ("pre_forward", "forward", "post_forward")
        before = {name: getattr(functions, name) for name in names}
        functions.pre_forward, functions.post_forward = _given, _returned
        if functions.original_forward is not None:
            functions.forward = functions.original_forward
        return functions, before


def _given(_: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


def _returned(_: nn.Module, output: Any) -> Any:
    return output
