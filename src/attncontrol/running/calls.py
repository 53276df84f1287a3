"""A call of the denoiser and its prediction, as values."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from attncontrol.attention.moment import Step
from attncontrol.errors import CallError
from attncontrol.prompts.text import Text


@dataclass(frozen=True, eq=False)
class DenoiserCall:
    """The ``nth`` forward of the denoiser in a step, its arguments by name.

    The batch has equal parts, one per branch, with one row for each of ``images``, their numbers in
    the pipeline's batch. ``part`` is the part of the noisy input, argument ``name``, that is
    denoised. ``batch_axis`` and ``rows_of`` are those of the family. Models that take a list of
    rows take lists only. ``further`` are texts of edits, at places counted from the end of the
    prompt's.
    """

    step: Step
    text: Text
    nth: int
    branches: tuple[str, ...]
    images: tuple[int, ...]
    arguments: dict[str, Any]
    name: str
    part: tuple[slice, ...]
    batch_axis: Mapping[str, int | None]
    further: Mapping[str, slice] = field(default_factory=dict)
    rows_of: Mapping[str, Callable[[Mapping[str, Any], Tensor], Any]] = field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether the run of the pipeline begins with this call."""
        return self.step.done == self.step.stage == self.step.view == self.nth == 0

    @property
    def latents(self) -> Tensor:
        """The scaled latents x of all rows."""
        return self._sample[self.part]

    @property
    def _sample(self) -> Tensor:
        sample = self.arguments[self.name]
        return torch.stack([noisy(row) for row in sample]) if isinstance(sample, list) else sample

    def rows(self, branch: str) -> slice:
        start = self.branches.index(branch) * len(self.images)
        return slice(start, start + len(self.images))

    def with_latents(self, latents: Tensor) -> "DenoiserCall":
        """As the pipeline's loop has them, whatever axes the denoiser has more."""
        sample = self._sample.clone()
        part = sample[self.part]
        sample[self.part] = latents.to(part).view_as(part)
        old = self.arguments[self.name]
        new = list(map(_with_noisy, old, sample)) if isinstance(old, list) else sample
        return replace(self, arguments=self.arguments | {self.name: new})

    def moved(self, change: Tensor) -> "DenoiserCall":
        """With a change of the latents, one row per image, in every branch."""
        change = change.repeat(len(self.branches), *[1] * (change.ndim - 1))
        return self.with_latents(self.latents + change.to(self.latents))

    def of(self, branch: str, images: Sequence[int] | None = None) -> "DenoiserCall":
        """The call for one branch and some images, by their numbers; all of them if None.

        Raises CallError for diffusers' PAG pipelines, whose processors need the rows of all
        branches.
        """
        if "perturbed" in self.branches:
            raise CallError(
                "a PAG pipeline of diffusers cannot run one branch alone, as steer and perturb "
                "need; call it with pag_scale=0 inside perturb(pipe, SoftIdentity(), scale=...), "
                "which is the same guidance"
            )
        numbers = self.images if images is None else tuple(images)
        start = self.rows(branch).start
        rows = torch.tensor([start + self.images.index(number) for number in numbers])
        return replace(self, branches=(branch,), images=numbers, arguments=self._arguments_of(rows))

    def told(self, rows: Sequence[int]) -> "DenoiserCall":
        """What row i is told, all but its latents, is that of ``rows[i]``."""
        arguments = self._arguments_of(torch.tensor(rows))
        own = {self.name: self.arguments[self.name]}
        return replace(self, arguments=arguments | own)

    def _arguments_of(self, rows: Tensor) -> dict[str, Any]:
        """Every tensor argument that has a batch axis is indexed."""
        size = len(self.arguments[self.name])
        listed = isinstance(self.arguments[self.name], list)

        def pick(value: Any, axis: int) -> Any:
            if isinstance(value, Tensor) and value.ndim > axis and value.shape[axis] == size:
                return value.index_select(axis, rows.to(value.device))
            of_rows = listed and isinstance(value, list) and len(value) == size
            return [value[i] for i in rows] if of_rows else value

        def is_leaf(value: Any) -> bool:
            return listed and isinstance(value, list)

        picked = dict(self.arguments)
        for name, value in self.arguments.items():
            if name in self.rows_of:
                picked[name] = self.rows_of[name](self.arguments, rows)
                continue
            axis = self.batch_axis.get(name, 0)
            if axis is not None:
                pick_axis = functools.partial(pick, axis=axis)
                picked[name] = tree_map(pick_axis, value, is_leaf=is_leaf)
        return picked


def noisy(row: Any) -> Tensor:
    """The last one of a row of several pictures."""
    last: Tensor = row[-1] if isinstance(row, list) else row
    return last


def _with_noisy(row: Any, picture: Tensor) -> Any:
    return [*row[:-1], picture] if isinstance(row, list) else picture


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
