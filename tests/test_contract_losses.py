"""What every file of ``losses`` keeps to, found by listing."""

import importlib
import inspect
import pkgutil
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch

from attncontrol import losses
from attncontrol.objectives.objective import Objective, OfLayout, losses_of
from tests.kit.objectives import BOXES, CLASSES, LAYOUTS, made
from tests.kit.steps import PROMPT, cells, step_maps

FILES = [name for _, name, _ in pkgutil.iter_modules(losses.__path__) if not name.startswith("_")]


@pytest.mark.parametrize("file", FILES)
def test_every_file_shows_an_example_of_its_class(file):
    example = importlib.import_module(f"attncontrol.losses.{file}").example()
    assert type(example).__name__.lower() == file.replace("_", "")


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_a_final_frozen_objective(name):
    cls = getattr(losses, name)
    assert issubclass(cls, Objective)
    assert is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert all(inspect.isabstract(base) for base in cls.__mro__[1:] if issubclass(base, Objective))
    assert "descent" in {field.name for field in fields(cls)} or name == "JointLoss"


@pytest.mark.parametrize("name", CLASSES)
def test_every_loss_is_an_objective(name):
    """One finite loss per image with a gradient, independent of the other images, also for uniform
    and one-hot maps."""
    objective = made(name)
    generator = torch.Generator().manual_seed(0)
    random = (4 * torch.randn(3, 2, 4, 6, 9, generator=generator, dtype=torch.float64)).softmax(-1)
    one_hot = torch.nn.functional.one_hot(random.argmax(-1), 9).double()
    before = random.flip(0).mean(1) if objective.remembers else None
    for maps in (random, torch.full_like(random, 1 / 9), one_hot):
        maps = maps.clone().requires_grad_()
        loss = losses_of(objective, step_maps(maps, objective.words, before))
        assert loss.shape == (3,)
        assert loss.isfinite().all()
        (gradient,) = torch.autograd.grad(loss[1], maps)
        assert gradient.isfinite().all()
        assert gradient[[0, 2]].abs().max() == 0
        kept = [0, 1] if objective.compares else [1]
        fewer = objective(
            step_maps(
                maps[kept],
                objective.words,
                None if before is None else before[kept],
                cells(maps)[kept],
            )
        )
        torch.testing.assert_close(fewer[-1], loss[1])


@pytest.mark.parametrize("words", [["frog"], ["cat", "frog"], [["red", "cat"]]], ids=str)
@pytest.mark.parametrize("name", CLASSES)
def test_a_loss_says_for_which_subjects_it_has_nothing_to_do(name, words):
    """Where it does not act its gradient is 0, elsewhere it is not."""
    cls = getattr(losses, name)
    if issubclass(cls, OfLayout):
        objective = cls({word: BOXES[word] for word in np.hstack(words).tolist() if word in BOXES})
    elif "words" not in {each.name for each in fields(cls)}:
        return
    else:
        objective = cls(words)
    maps, before = (
        torch.randn(1, 2, 4, 6, 9, generator=torch.Generator().manual_seed(seed)).double()
        for seed in (0, 1)
    )
    maps = (3 * maps).softmax(-1).requires_grad_()
    seen = step_maps(maps, objective.words, (3 * before).softmax(-1).mean(1))
    (gradient,) = torch.autograd.grad(losses_of(objective, seen).sum(), maps)
    assert objective.acts(seen.subjects[0]) == bool(gradient.any())


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_prompt_may_have_a_layout_of_its_own(name):
    maps = torch.rand(
        2, 2, 4, 6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    cls = getattr(losses, name)
    of_prompt = cls({PROMPT: BOXES, "elsewhere": {"dog": BOXES["cat"]}})
    assert of_prompt.words == {PROMPT: ["cat", "frog"], "elsewhere": ["dog"]}
    expected = cls(BOXES)(step_maps(maps, ["cat", "frog"]))
    assert torch.equal(of_prompt(step_maps(maps, of_prompt.words)), expected)
