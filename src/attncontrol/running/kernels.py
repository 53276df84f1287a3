"""Sites that leave their own kernel for torch's: which, and the warning that names them."""

import warnings
from collections.abc import Iterable

from torch import nn

from attncontrol.attention.kernels import backend_of, twin_of
from attncontrol.attention.sites import Site
from attncontrol.running.contexts import Contexts
from attncontrol.running.wiring import Sites


def tell_replaced(contexts: Contexts, sites: Sites) -> None:
    """Warns of eager, sliced and xformers attention at these sites, once while contexts are
    open."""
    modules = {name: contexts.denoiser.get_submodule(name) for name in sites}
    replaced = {
        name: type(module.processor).__name__.removeprefix("Control")
        for name, module in modules.items()
        if name not in contexts.told and twin_of(module.processor, module) is not None
    }
    if replaced:
        contexts.told.update(replaced)
        _warn(replaced, replaced.values(), "in this block")


def tell_left(contexts: Contexts) -> None:
    """Warns of sites whose own kernel could not compute what edits made of a call."""
    left = {name: backend for name, backend in contexts.left.items() if name not in contexts.told}
    contexts.left.clear()
    if left:
        contexts.told.update(left)
        backends = (getattr(backend, "value", str(backend)) for backend in left.values())
        _warn(left, backends, "where an edit gave it a mask, other heads or other lengths")


def dispatching(denoiser: nn.Module) -> Sites:
    """All attention that runs in a backend of diffusers which may have no gradient."""
    return {
        name: Site(name, "self", getattr(module, "heads", 1), 1)
        for name, module in denoiser.named_modules()
        if backend_of(getattr(module, "processor", None)) is not None
    }


def _warn(names: Iterable[str], instead_of: Iterable[str], when: str) -> None:
    names, kernels = tuple(names), ", ".join(sorted(set(instead_of)))
    warnings.warn(
        f"{len(names)} sites run through torch's scaled_dot_product_attention instead of {kernels} "
        f"{when}: {', '.join(names)}",
        stacklevel=4,
    )
