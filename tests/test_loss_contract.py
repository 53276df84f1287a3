"""What every file of ``losses`` keeps to."""

import importlib
import pkgutil

import pytest
import torch

from attncontrol import losses
from tests.kit.steps import cells, step_maps

LOSSES = [name for _, name, _ in pkgutil.iter_modules(losses.__path__)]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_an_objective(name):
    """One finite loss per image with a gradient, independent of the other images, also for uniform
    and one-hot maps."""
    objective = importlib.import_module(f"attncontrol.losses.{name}").example()
    generator = torch.Generator().manual_seed(0)
    random = (4 * torch.randn(3, 2, 4, 6, 9, generator=generator, dtype=torch.float64)).softmax(-1)
    one_hot = torch.nn.functional.one_hot(random.argmax(-1), 9).double()
    before = random.flip(0).mean(1) if getattr(objective, "remembers", False) else None
    for maps in (random, torch.full_like(random, 1 / 9), one_hot):
        maps = maps.clone().requires_grad_()
        loss = objective(step_maps(maps, objective.words, before))
        assert loss.shape == (3,)
        assert loss.isfinite().all()
        (gradient,) = torch.autograd.grad(loss[1], maps)
        assert gradient.isfinite().all()
        assert gradient[[0, 2]].abs().max() == 0
        kept = [0, 1] if getattr(objective, "compares", False) else [1]
        fewer = objective(
            step_maps(
                maps[kept],
                objective.words,
                None if before is None else before[kept],
                cells(maps)[kept],
            )
        )
        torch.testing.assert_close(fewer[-1], loss[1])
