"""A call of the denoiser and its prediction, as values."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


@dataclass(frozen=True)
class Step:
    """One denoising step. ``scale`` is c in x = c z; ``prompts`` has one entry per image.

    ``encoding`` are the arguments with which the pipeline called its ``encode_prompt``.
    """

    index: int
    total: int
    timestep: float
    scale: float
    prompts: tuple[str | None, ...]
    encoding: Mapping[str, Any]


@dataclass(frozen=True)
class DenoiserCall:
    """The ``nth`` forward of the denoiser in a step, its arguments by name.

    The batch has equal parts, one per branch, with one row per image each. ``part`` is the part of
    the noisy input, argument ``name``, that is denoised. ``batch_axis`` is that of the family.
    Models that take a list of rows take lists only.
    """

    step: Step
    nth: int
    branches: tuple[str, ...]
    images: int
    arguments: dict[str, Any]
    name: str
    part: tuple[slice, ...]
    batch_axis: Mapping[str, int | None]

    @property
    def latents(self) -> Tensor:
        """The scaled latents x of all rows."""
        return self._sample[self.part]

    @property
    def _sample(self) -> Tensor:
        sample = self.arguments[self.name]
        return torch.stack(sample) if isinstance(sample, list) else sample

    def rows(self, branch: str) -> slice:
        start = self.branches.index(branch) * self.images
        return slice(start, start + self.images)

    def with_latents(self, latents: Tensor) -> "DenoiserCall":
        sample = self._sample.clone()
        sample[self.part] = latents.to(sample.dtype)
        listed = isinstance(self.arguments[self.name], list)
        return replace(
            self, arguments=self.arguments | {self.name: list(sample) if listed else sample}
        )

    def select(self, rows: Tensor) -> "DenoiserCall":
        """The call on some rows: every tensor argument that has a batch axis is indexed."""
        size, listed = len(self.arguments[self.name]), isinstance(self.arguments[self.name], list)

        def pick(value: Any, axis: int) -> Any:
            if isinstance(value, Tensor) and value.ndim > axis and value.shape[axis] == size:
                return value.index_select(axis, rows.to(value.device))
            return (
                [value[i] for i in rows]
                if listed and isinstance(value, list) and len(value) == size
                else value
            )

        picked = dict(self.arguments)
        for name, value in self.arguments.items():
            axis = self.batch_axis.get(name, 0)
            if axis is not None:
                picked[name] = tree_map(
                    functools.partial(pick, axis=axis),
                    value,
                    is_leaf=lambda v: listed and isinstance(v, list),
                )
        return replace(self, arguments=picked)


probing: ContextVar[bool] = ContextVar("probing", default=False)
"""True inside a gradient pass, which recorders must not see."""


@contextmanager
def aside() -> Iterator[None]:
    """For forwards of the denoiser that are not the pipeline's own."""
    token = probing.set(True)
    try:
        yield
    finally:
        probing.reset(token)


def prediction_of(output: Any) -> Tensor:
    """What a denoiser predicts, from the tuple or model output that it returns; lists of rows are
    stacked."""
    first = output[0]
    return torch.stack(first) if isinstance(first, list) else first


def with_prediction(output: Any, prediction: Tensor) -> Any:
    first = list(prediction) if isinstance(output[0], list) else prediction
    if isinstance(output, tuple):
        return first, *output[1:]
    return type(output)(**{**output, next(iter(output)): first})
