"""Attention calls of a denoiser that runs by hand."""

from contextlib import contextmanager

from attncontrol.attention.intercept import wrap


@contextmanager
def tap(denoiser, sites, handler):
    """Hands the attention calls of ``sites`` to ``handler``, whose result replaces the output."""
    modules = {name: denoiser.get_submodule(name) for name in sites}
    previous = {name: module.processor for name, module in modules.items()}
    try:
        for name, module in modules.items():
            module.processor = wrap(previous[name], sites[name], handler)
        yield
    finally:
        for name, module in modules.items():
            module.processor = previous[name]
