"""Muon: steps of matrices along the nearest semi-orthogonal matrix of their momentum."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Five rounds bring singular values of 0.01 .. 1 to 0.68 .. 1.14 (Jordan 2024)."""


def block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The matrices of numbered blocks; not embeddings, of which a batch reads few rows."""
    return [
        parameter
        for name, module in model.named_modules()
        if re.search(r"\.\d+(\.|$)", name) and not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 2
    ]


def orthogonal(matrices: Tensor) -> Tensor:
    """About U V^T of every U S V^T, by five Newton-Schulz rounds: [batch rows columns] with rows <=
    columns; bfloat16 on an accelerator."""
    first, third, fifth = NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x if x.device.type == "cpu" else x.bfloat16()
    for _ in range(5):
        square = x @ x.mT
        x = first * x + (third * square + fifth * square @ square) @ x
    return x.to(matrices.dtype)


class Muon:
    """Keller Jordan 2024, "Muon: an optimizer for hidden layers in neural networks".

        m <- mu m + (1 - mu) g
        W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) O(mu m + (1 - mu) g)

    ``O`` is ``orthogonal``. The factor gives every update about the root mean square of AdamW's,
    0.2 (Liu 2025, 2502.16982). ``lr`` is a tensor, so that a captured graph reads its new values.
    Matrices of one shape, also transposed, are one batch.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: Tensor,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        shapes: dict[tuple[int, ...], list[Tensor]] = {}
        for matrix in matrices:
            shapes.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
        self.groups = [(group, [torch.zeros_like(p) for p in group]) for group in shapes.values()]

    @torch.no_grad()
    def step(self) -> None:
        for group, momenta in self.groups:
            gradients = [p.grad for p in group if p.grad is not None]
            torch._foreach_lerp_(momenta, gradients, 1 - self.momentum)
            ahead = torch._foreach_lerp(gradients, momenta, self.momentum)
            wide = orthogonal(torch.stack([u if _is_wide(u) else u.mT for u in ahead]))
            scaled = self.lr * 0.2 * wide.shape[2] ** 0.5 * wide
            torch._foreach_mul_(group, 1 - self.lr * self.weight_decay)
            steps = [s if _is_wide(p) else s.mT for p, s in zip(group, scaled, strict=True)]
            torch._foreach_sub_(group, steps)


def _is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]
