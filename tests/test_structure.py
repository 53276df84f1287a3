"""The direction of imports, the size of files, and the contract of loss files."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest
import torch

import attncontrol
from attncontrol import losses
from tests.kit.steps import cells, step_maps

SOURCE = Path(attncontrol.__file__).parent
ORDER = [
    "errors", "axes", "boxes", "descent", "results", "sites", "processors", "tokens", "families", "lexicon", "parser", "syntax",
    "functional", "maps", "supported", "calls", "steps", "relations", "store", "provenance", "record", "compose", "search",
    "losses", "auto", "view", "steer", "prefix", "edits", "perturb", "heads", "analysis", "export", "testbed", "batch", "cli",
]  # fmt: skip
LOSSES = [name for _, name, _ in pkgutil.iter_modules(losses.__path__)]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def layer_of(name: str) -> str:
    return name.removeprefix("attncontrol.").split(".")[0]


FILES = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downwards(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    used = {layer_of(name) for name in imported(path) if name.startswith("attncontrol.")} - {own}
    allowed = set(ORDER[: ORDER.index(own)])
    if path.parent.name == "testbed" and path.stem in ("bench", "compare", "guidance"):
        allowed |= {"batch"}  # they measure the package through its own entry points
    if path.stem == "tokens":
        allowed |= {"families"}
    if path.stem == "maps":
        allowed |= {"export"}  # what a notebook shows
    assert used <= allowed
    external = {name.split(".")[0] for name in imported(path)}
    if own in ("losses", "functional", "maps", "descent"):
        assert not external & {"diffusers", "transformers", "spacy", "PIL"}
    if "diffusers" in external:
        assert own in ("processors", "families", "steps", "testbed", "batch")
    if "spacy" in external:
        assert own == "parser"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= (
        120 if path.parent.name == "losses" else 300 if "testbed" in path.parts else 250
    )


def test_public_names_exist():
    assert len(attncontrol.__all__) <= 15
    for name in attncontrol.__all__:
        assert getattr(attncontrol, name) is not None


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
