"""Processors that compute the attention of every row of a batch by itself, over as many keys as the
row has text (Mochi): seen as one call of all rows, in which padding is masked.

The processor runs twice: its inputs are gathered, then what is made of them takes the place of its
own outputs. Its projections are computed twice, attention once, by row where nobody changed the
mask, so that outputs are those of the processor itself.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attncontrol.attention.call import AttentionCall, call_of
from attncontrol.attention.sites import Site

_CLASSES = {"MochiAttnProcessor2_0"}


def runs_by_row(processor: Any) -> bool:
    """Whether a processor is known to."""
    return not _CLASSES.isdisjoint(cls.__name__ for cls in type(processor).__mro__)


def in_one_call(
    run: Callable[[], Any], site: Site, handler: Callable[[AttentionCall], Tensor]
) -> Any:
    """What ``run`` returns, the processor's own output, after ``handler`` had all rows."""
    gathering = _Gathering(site)
    with gathering:
        output = run()
    if not gathering.calls:
        return output
    attended = handler(joined(gathering.calls))
    lengths = [call.query.shape[2] for call in gathering.calls]
    with _Replacing([attended[i : i + 1, :, :n] for i, n in enumerate(lengths)]):
        return run()


def joined(calls: list[AttentionCall]) -> AttentionCall:
    """The calls of one row each as one, with a mask [batch 1 1 position]."""
    lengths = torch.tensor([call.key.shape[2] for call in calls], device=calls[0].key.device)
    longest = int(lengths.max())
    query, key, value = (
        torch.cat([_filled(getattr(call, name), longest) for call in calls])
        for name in ("query", "key", "value")
    )
    mask = torch.arange(longest, device=lengths.device) < lengths[:, None]
    first = calls[0]
    return first.replace(
        query=query, key=key, value=value, mask=mask[:, None, None], backend=_by_row
    )


def _filled(tensor: Tensor, length: int) -> Tensor:
    return F.pad(tensor, (0, 0, 0, length - tensor.shape[2]))


def _by_row(call: AttentionCall) -> Tensor | None:
    """As the processor does; None where the mask is no longer that of padding."""
    mask = call.mask
    if mask is None or mask.dtype != torch.bool or mask.shape[:3] != (len(call.query), 1, 1):
        return None
    lengths = mask.sum(-1).flatten().tolist()
    if not torch.equal(mask[:, 0, 0].cummin(-1).values, mask[:, 0, 0]):
        return None
    rows = []
    for i, length in enumerate(lengths):
        query, key, value = (
            each[i : i + 1, :, :length] for each in (call.query, call.key, call.value)
        )
        output = F.scaled_dot_product_attention(query, key, value, scale=call.scale)
        rows.append(_filled(output, call.query.shape[2]))
    return torch.cat(rows)


class _Gathering(TorchFunctionMode):
    """Keeps the calls of attention, which return zeros."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site, self.calls = site, list[AttentionCall]()

    def __torch_function__(
        self, func: Any, _: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        call = call_of(self.site, args, kwargs or {})
        self.calls.append(call)
        return call.query.new_zeros(*call.query.shape[:3], call.value.shape[-1])


class _Replacing(TorchFunctionMode):
    """Returns outputs of attention that are known, in their order."""

    def __init__(self, outputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.outputs = iter(outputs)

    def __torch_function__(
        self, func: Any, _: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return next(self.outputs)
