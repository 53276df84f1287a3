"""One execution of attention as a value."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.overrides import _get_current_function_mode_stack

from attncontrol.attention.layout import Layout
from attncontrol.attention.sites import Site
from attncontrol.errors import BackendError, EditError

__all__ = ["AttentionCall", "Layout"]

Mask = Float[Tensor, "*mask #query key"] | Bool[Tensor, "*mask #query key"]
Probabilities = Float[Tensor, "batch heads query key"]
Key = Float[Tensor, "batch heads key dim"]
Query = Float[Tensor, "batch heads query dim"]

Backend = Callable[["AttentionCall"], Tensor | None]

_SHORT = 512  # keys up to which the explicit softmax is faster (text); measured in tests/perf


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One execution of a site: query, key, value [batch heads position dim] after projection,
    qk-norm and rotation, with the mask and the scale of the kernel.

    ``normaliser`` is the logarithm of the sum over keys of exp(logits) [batch heads query], where
    it is known. ``below`` is what ``run`` reaches: further edits and those who listen, None for the
    kernel itself. ``further`` are key and value of the texts of edits in cross-attention, ``heads``
    the numbers of the heads at the site, None for all of them. ``backend`` is the processor's own
    kernel where that is not torch's: the output of calls that it can take, None for others.
    """

    site: Site
    query: Query
    key: Key
    value: Key
    mask: Mask | None = None
    dropout: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    normaliser: Tensor | None = field(default=None, repr=False)
    below: "Callable[[AttentionCall], Tensor] | None" = field(default=None, repr=False)
    further: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    heads: tuple[int, ...] | None = None
    backend: Backend | None = field(default=None, repr=False)

    def run(self) -> Tensor:
        """The attention output [batch heads query dim], after the edits below this one."""
        return self.kernel() if self.below is None else self.below(self)

    def kernel(self) -> Tensor:
        """The attention output, by the processor's own kernel where it takes this call, or else by
        the one that torch chooses."""
        output = None if self.backend is None else self.backend(self)
        return self.exact() if output is None else output

    def exact(self) -> Tensor:
        """The attention output, by the kernel that torch chooses."""
        return F.scaled_dot_product_attention(
            self.query, self.key, self.value, self.mask, self.dropout, self.is_causal,
            scale=self.scale, enable_gqa=self.enable_gqa,
        )  # fmt: skip

    def run_with_normaliser(self) -> "tuple[Tensor, AttentionCall]":
        """run(), and the call with its normaliser where the same kernel gives it: long keys without
        mask or gradient on a CPU, and nobody below."""
        worth = self.below is None and self.backend is None and self.key.shape[2] > _SHORT
        found = self.kernel_with_normaliser() if worth else None
        return (
            (self.run(), self) if found is None else (found[0], replace(self, normaliser=found[1]))
        )

    def kernel_with_normaliser(self) -> tuple[Tensor, Tensor] | None:
        """kernel(), and its normaliser where the same kernel gives it: without mask or gradient on
        a CPU."""
        special = self.dropout or self.is_causal or self.enable_gqa or torch.is_grad_enabled()
        plain = self.mask is None and not special and not _get_current_function_mode_stack()
        inputs = (self.query, self.key, self.value)
        flash = SDPBackend.FLASH_ATTENTION.value
        if not (plain and self.query.device.type == "cpu"
                and torch._fused_sdp_choice(*inputs, scale=self.scale) == flash):  # fmt: skip
            return None
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*inputs, scale=self.scale)

    def replace(self, **changes: Any) -> "AttentionCall":
        """The call with another ``query``, ``key``, ``value``, ``mask`` or ``scale``."""
        return replace(self, normaliser=None, **changes)

    def masked(self, allowed: Tensor) -> "AttentionCall":
        """The call in which queries see the ``allowed`` keys alone, bool [#batch #heads #query
        key]."""
        if self.mask is None:
            return self.replace(mask=allowed)
        if self.mask.dtype == torch.bool:
            return self.replace(mask=self.mask & allowed)
        return self.replace(mask=self.mask.masked_fill(~allowed, -math.inf))

    def biased(self, bias: Tensor) -> "AttentionCall":
        """The call with ``bias`` [#batch #heads #query key] added to its logits."""
        bias = bias.to(self.query)
        if self.mask is None:
            return self.replace(mask=bias)
        if self.mask.dtype == torch.bool:
            return self.replace(mask=torch.where(self.mask, bias, -math.inf))
        return self.replace(mask=self.mask + bias)

    def of_heads(self, heads: Sequence[int]) -> "AttentionCall":
        """The call restricted to some heads."""
        at = list(heads)
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[1] > 1:
            mask = mask[:, at]
        part = self._at((slice(None), at))
        own = tuple(at if self.heads is None else (self.heads[head] for head in at))
        return replace(self, mask=mask, normaliser=None, below=self._part, heads=own, **part)

    def of_queries(self, queries: slice | Tensor) -> "AttentionCall":
        """The call restricted to some queries."""
        mask = self.mask
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., queries, :]
        normaliser = None if self.normaliser is None else self.normaliser[:, :, queries]
        query = self.query[:, :, queries]
        return replace(self, query=query, mask=mask, normaliser=normaliser, below=self._part)

    def rows(self, rows: slice | Sequence[int] | Tensor) -> "AttentionCall":
        """The call restricted to some rows of the batch."""
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
            mask = mask[rows]
        normaliser = None if self.normaliser is None else self.normaliser[rows]
        part = self._at(rows)
        return replace(self, mask=mask, normaliser=normaliser, below=self._part, **part)

    def _at(self, index: Any) -> dict[str, Any]:
        part = {name: getattr(self, name)[index] for name in ("query", "key", "value")}
        more = {text: (key[index], value[index]) for text, (key, value) in self.further.items()}
        return part | {"further": more}

    @property
    def _part(self) -> "Callable[[AttentionCall], Tensor] | None":
        """``below`` of a part of the call."""
        return None if self.below is None else _whole_only

    def probabilities(self) -> Probabilities:
        """softmax(scale * query @ key^T + mask) over keys, in float32 or wider. Rows whose keys are
        all masked are zero.

        Materialises query x key values per head: meant for short key sequences (text).
        """
        if self.is_causal or self.enable_gqa:
            raise BackendError(
                f"probabilities of a causal or grouped-query call at {self.site.name} are not "
                "implemented"
            )
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
        return self.replace(scale=self.factor * factor, mask=mask)

    def _logits(self, key: Key) -> Tensor:
        return _at_least_single((self.query * self.factor) @ key.transpose(-1, -2))

    def mass(self, columns: Tensor, queries: slice) -> Probabilities:
        """probabilities()[queries] @ columns, for 0/1 ``columns`` [batch key column]: mass on
        groups of keys, exact.

        Where the keys outnumber the columns widely, the softmax is not formed. With the normaliser
        z it is exp(logits - z) of the marked keys; else the kernel's output for values that are
        these columns is the same product, in memory of queries x head width, with gradients from
        the kernel.
        """
        part = self.of_queries(queries)
        if part.normaliser is not None:
            marked = columns.amax((0, 2)).nonzero()[:, 0]
            logits = part._logits(self.key[:, :, marked])
            probabilities = (logits - part.normaliser[..., None]).exp()
            return probabilities @ columns[:, None, marked].to(probabilities)
        if self.key.shape[2] <= _SHORT and not (self.is_causal or self.enable_gqa):
            probabilities = part.probabilities()
            return probabilities @ columns[:, None].to(probabilities)
        width = self.value.shape[-1]
        outputs = []
        for chunk in columns.to(self.value).split(width, -1):
            value = F.pad(chunk, (0, width - chunk.shape[-1]))[:, None]
            value = value.expand(-1, self.value.shape[1], -1, -1).contiguous()
            outputs.append(part.replace(value=value).exact()[..., : chunk.shape[-1]])
        return _at_least_single(torch.cat(outputs, -1))


_POSITIONAL = ("query", "key", "value", "mask", "dropout", "is_causal")
_NAMES = {"attn_mask": "mask", "dropout_p": "dropout"}


def call_of(site: Site, args: Sequence[Any], kwargs: Mapping[str, Any]) -> AttentionCall:
    """The call that scaled_dot_product_attention was given."""
    named = dict(zip(_POSITIONAL, args, strict=False))
    return AttentionCall(
        site, **named | {_NAMES.get(name, name): value for name, value in kwargs.items()}
    )


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _whole_only(call: AttentionCall) -> Tensor:
    raise EditError(
        f"a part of the call at {call.site.name} was run, but another edit below it knows whole "
        "calls only: run the whole call and take the part of its output, or use kernel()"
    )
