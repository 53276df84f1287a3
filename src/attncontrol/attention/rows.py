"""Rows of tensors that are those of a source."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attncontrol.errors import CouplingError


def rows_at(tensor: Tensor, at: Sequence[int]) -> Tensor:
    """Rows ``at``; a gradient goes through those that stay where they are alone."""
    if not tensor.requires_grad:
        return tensor[at]
    stays = torch.tensor([row == of for row, of in enumerate(at)], device=tensor.device)
    return torch.where(stays.view(-1, *[1] * (tensor.ndim - 1)), tensor, tensor.detach()[at])


def require_same_shape(theirs: Tensor, own: Tensor, name: str, site: str) -> None:
    """Raises CouplingError where rows of a kept source do not fit."""
    if theirs.shape[1:] != own.shape[1:]:
        raise CouplingError(
            f"the source was kept with {name} {tuple(theirs.shape[1:])} at {site or 'a step'}, this"
            f" run has {tuple(own.shape[1:])}: keep it with a text and edits of the same length"
        )


def put(own: Tensor, other: Tensor, places: slice) -> Tensor:
    """``own`` with ``other`` at the positions ``places``."""
    result = own.clone()
    result[:, :, places] = other
    return result
