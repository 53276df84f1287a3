"""Which positions of attention depend on which arguments of a denoiser, found by changing these.

While all attention returns nothing, no token learns of another: a position whose query and key move
with the text is one of the text, in every block alike. Text that enters in a second way, such as
its mean in the time embedding, moves all positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from attncontrol.attention.call import AttentionCall
from attncontrol.attention.intercept import ControlAttnProcessor, wrap
from attncontrol.attention.sites import Site

_MOVED = 1e-3  # of the largest entry; those that nothing reaches are equal but for rounding

Places = dict[str, tuple[Tensor, Tensor]]
"""Site to query and key [batch heads position dim]; sites that ran once alone."""


def places(denoiser: nn.Module, sites: Sequence[Site], arguments: Mapping[str, Any]) -> Places:
    """Queries and keys of a run of the denoiser in which all attention returns zeros."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def silent(call: AttentionCall) -> Tensor:
        seen.setdefault(call.site.name, []).append((call.query, call.key))
        return call.query.new_zeros(*call.query.shape[:3], call.value.shape[-1])

    with torch.no_grad(), _handled(denoiser, sites, silent):
        denoiser.forward(**arguments)
    return {name: runs[0] for name, runs in seen.items() if len(runs) == 1}


@contextmanager
def _handled(denoiser: nn.Module, sites: Sequence[Site], handler: Any) -> Iterator[None]:
    """Inside a run too: processors are those before anybody wrapped them, and come back."""
    modules: dict[str, Any] = {site.name: denoiser.get_submodule(site.name) for site in sites}
    before = {name: module.processor for name, module in modules.items()}
    try:
        for site in sites:
            processor = before[site.name]
            while isinstance(processor, ControlAttnProcessor):
                processor = processor.wrapped
            modules[site.name].processor = wrap(processor, site, handler)
        yield
    finally:
        for name, module in modules.items():
            module.processor = before[name]


def moved(before: Places, after: Places) -> dict[str, Bool[Tensor, "position"]]:
    """Which positions differ, of sites whose queries and keys are the same positions."""
    changes = {}
    for name in before.keys() & after.keys():
        pairs = zip(before[name], after[name], strict=True)
        query, key = (_differ(one, other) for one, other in pairs)
        if torch.equal(query, key):
            changes[name] = key
    return changes


def _differ(one: Tensor, other: Tensor) -> Tensor:
    difference = (one - other).abs().amax((0, 1, 3))
    return difference > _MOVED * one.abs().amax()
