"""Interception of attention: ``tap`` wraps the processors of some modules and hands every attention
call to a function.

The wrapped processor keeps running; only its call of ``F.scaled_dot_product_attention`` is handed
over, after projection, qk-norm and positional rotation. So one wrapper serves every diffusers
processor that uses that function.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.overrides import _get_current_function_mode_stack

from attncontrol.attention.sites import Site
from attncontrol.axes import Key, Mask, Probabilities, Query
from attncontrol.errors import UnsupportedError


@dataclass(frozen=True)
class AttentionCall:
    """One execution of a site. ``index`` counts the calls of the site within one forward of its
    module.

    ``normaliser`` is the logarithm of the sum over keys of exp(logits) [batch heads query], where
    it is known.
    """

    site: Site
    index: int
    query: Query
    key: Key
    value: Key
    mask: Mask | None = None
    dropout: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False
    normaliser: Tensor | None = None

    def run(self) -> Tensor:
        """The attention output, by the kernel that torch chooses."""
        return F.scaled_dot_product_attention(
            self.query,
            self.key,
            self.value,
            self.mask,
            self.dropout,
            self.is_causal,
            scale=self.scale,
            enable_gqa=self.enable_gqa,
        )

    def ran(self) -> "tuple[Tensor, AttentionCall]":
        """run(), and the call with its normaliser where the same kernel gives it: long keys without
        mask or gradient on a CPU."""
        simple = self.mask is None and not (
            self.dropout or self.is_causal or self.enable_gqa or torch.is_grad_enabled()
        )
        inputs = (self.query, self.key, self.value)
        alone = (
            not _get_current_function_mode_stack()
        )  # else run() must reach the handlers of other contexts
        worth = simple and alone and self.key.shape[2] > _SHORT and self.query.device.type == "cpu"
        if not (
            worth
            and torch._fused_sdp_choice(*inputs, scale=self.scale)
            == SDPBackend.FLASH_ATTENTION.value
        ):
            return self.run(), self
        output, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *inputs, scale=self.scale
        )
        return output, replace(self, normaliser=normaliser)

    def of_heads(self, heads: Sequence[int]) -> "AttentionCall":
        """The call restricted to some heads."""
        at = list(heads)
        mask = (
            self.mask[:, at]
            if self.mask is not None and self.mask.ndim == 4 and self.mask.shape[1] > 1
            else self.mask
        )
        return replace(
            self,
            query=self.query[:, at],
            key=self.key[:, at],
            value=self.value[:, at],
            mask=mask,
            normaliser=None,
        )

    def of_queries(self, queries: slice | Tensor) -> "AttentionCall":
        """The call restricted to some queries."""
        mask = (
            self.mask
            if self.mask is None or self.mask.shape[-2] == 1
            else self.mask[..., queries, :]
        )
        normaliser = None if self.normaliser is None else self.normaliser[:, :, queries]
        return replace(self, query=self.query[:, :, queries], mask=mask, normaliser=normaliser)

    def rows(self, rows: slice | Tensor) -> "AttentionCall":
        """The call restricted to some rows of the batch."""
        mask = (
            self.mask[rows]
            if self.mask is not None and self.mask.ndim == 4 and self.mask.shape[0] > 1
            else self.mask
        )
        normaliser = None if self.normaliser is None else self.normaliser[rows]
        return replace(
            self,
            query=self.query[rows],
            key=self.key[rows],
            value=self.value[rows],
            mask=mask,
            normaliser=normaliser,
        )

    def probabilities(self) -> Probabilities:
        """softmax(scale * query @ key^T + mask) over keys, in float32 or wider. Rows whose keys are
        all masked are zero.

        Materialises query x key values per head: meant for short key sequences (text).
        """
        if self.is_causal or self.enable_gqa:
            raise UnsupportedError(
                f"probabilities of a causal or grouped-query call at {self.site.name} are not implemented"
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
        return replace(self, scale=self.factor * factor, mask=mask, normaliser=None)

    def _logits(self, key: Key) -> Tensor:
        return _at_least_single((self.query * self.factor) @ key.transpose(-1, -2))

    def mass(self, columns: Tensor, queries: slice) -> Probabilities:
        """probabilities()[queries] @ columns, for 0/1 ``columns`` [batch key column]: mass on
        groups of keys, exact.

        Where the keys outnumber the columns widely, the softmax is not formed. With the normaliser
        z it is exp(logits - z) of the marked keys; else the attention output for values that are
        these columns is the same product, in memory of queries x head width, with gradients from
        the kernel.
        """
        part = self.of_queries(queries)
        if part.normaliser is not None:
            marked = columns.amax((0, 2)).nonzero()[:, 0]
            probabilities = (
                part._logits(self.key[:, :, marked]) - part.normaliser[..., None]
            ).exp()
            return probabilities @ columns[:, None, marked].to(probabilities)
        if self.key.shape[2] <= _SHORT and not (self.is_causal or self.enable_gqa):
            probabilities = part.probabilities()
            return probabilities @ columns[:, None].to(probabilities)
        width = self.value.shape[-1]
        outputs = []
        for chunk in columns.to(self.value).split(width, -1):
            value = F.pad(chunk, (0, width - chunk.shape[-1]))[:, None].expand(
                -1, self.value.shape[1], -1, -1
            )
            outputs.append(replace(part, value=value.contiguous()).run()[..., : chunk.shape[-1]])
        return _at_least_single(torch.cat(outputs, -1))


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


_SHORT = 512  # keys up to which the explicit softmax is faster (text); measured in tests/perf


@dataclass(frozen=True)
class Layout:
    """Where the picture and the text lie in the sequences of one site.

    The picture is a row-major ``grid`` (height, width), a video (frames, height, width). ``image``
    are its queries, in joint attention also its keys, as one slice or, where the rows of the batch
    differ, one for each; ``text`` are keys.
    """

    grid: tuple[int, ...]
    image: slice | tuple[slice, ...] = field(default_factory=lambda: slice(None))
    text: slice = field(default_factory=lambda: slice(None))

    def rows(self, rows: slice) -> "Layout":
        """Of some rows of the batch."""
        return self if isinstance(self.image, slice) else replace(self, image=self.image[rows])
