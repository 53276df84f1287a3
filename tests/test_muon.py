"""Muon beside a statement of it by singular values, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from attncontrol.sprites.training.muon import Muon, block_matrices, orthogonal


def rounds(singular):
    for _ in range(5):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return singular


@pytest.mark.parametrize("shape", [(6, 6), (5, 17)])
def test_singular_values_of_an_update_are_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    values = torch.linspace(1, 0.03, shape[0], dtype=torch.float64).expand_as(values)
    found = orthogonal(left * values[:, None] @ right)
    expected = left * rounds(values / values.norm(dim=1, keepdim=True))[:, None] @ right
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    singular = torch.linalg.svdvals(found)
    assert singular.min() > 0.68
    assert singular.max() < 1.14


def stated(weight, gradients, lr):
    momentum = np.zeros_like(weight)
    for gradient in gradients:
        momentum = 0.95 * momentum + 0.05 * gradient
        left, values, right = np.linalg.svd(0.95 * momentum + 0.05 * gradient, full_matrices=False)
        ahead = left * rounds(values / np.linalg.norm(values)) @ right
        weight = weight * (1 - 0.05 * lr) - lr * 0.2 * max(weight.shape) ** 0.5 * ahead
    return weight


def test_three_steps_by_the_rule():
    rng = np.random.default_rng(0)
    shapes = [(4, 9), (9, 4), (4, 9), (7, 7)]
    first = [rng.normal(size=shape) for shape in shapes]
    gradients = [[rng.normal(size=shape) for shape in shapes] for _ in range(3)]
    weights = [nn.Parameter(torch.from_numpy(weight.copy())) for weight in first]
    rate = torch.zeros((), dtype=torch.float64)
    muon = Muon(weights, rate)
    rate.fill_(0.1)
    for each in gradients:
        for weight, gradient in zip(weights, each, strict=True):
            weight.grad = torch.from_numpy(gradient)
        muon.step()
    for i, weight in enumerate(weights):
        expected = stated(first[i], [each[i] for each in gradients], 0.1)
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_an_update_has_about_the_root_mean_square_of_adamw():
    generator = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.zeros(32, 96))
    weight.grad = torch.randn(32, 96, generator=generator)
    Muon([weight], torch.tensor(1.0)).step()
    assert 0.2 * 0.68 < weight.square().mean().sqrt() < 0.2 * 1.14


def test_matrices_are_those_of_blocks():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(6, 4))
            self.linear = nn.Linear(4, 4)
            self.near = nn.Embedding(8, 4)

    model = nn.ModuleDict(
        {
            "transformer": nn.ModuleDict(
                {"blocks": nn.ModuleList([Block()]), "linear_1": nn.Linear(4, 4)}
            )
        }
    )
    block = model["transformer"]["blocks"][0]
    assert {id(matrix) for matrix in block_matrices(model)} == {
        id(block.table),
        id(block.linear.weight),
    }
