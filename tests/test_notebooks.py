"""Every notebook runs from top to bottom, with few steps, and is kept without outputs."""

import ast
import json
from pathlib import Path

import pytest
from PIL import Image

from attncontrol import sprites

FOLDER = Path(__file__).parents[1] / "samples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = {"first_steps": 4, "a_new_loss": 3, "reading_maps": 3}
"""That are the last value of a cell, and so are shown."""


def cells(path):
    """The code of each."""
    found = json.loads(path.read_text("utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def run(code, names):
    """The value of the last line, if it has one."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return last and eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, monkeypatch):
    call = sprites.call
    monkeypatch.setattr(sprites, "call", lambda name="sd": {**call(name), "num_inference_steps": 2})
    names = {"__name__": "__main__"}
    sources = ["".join(cell["source"]).replace("range(4)", "range(1)") for cell in cells(path)]
    values = [run(source, names) for source in sources]  # one seed is enough to see it run
    assert sum(isinstance(value, Image.Image) for value in values) == PICTURES[path.stem]
    assert [value for value in values if value is False] == []  # a claim that does not hold


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    assert [cell for cell in cells(path) if cell["outputs"] or cell["execution_count"]] == []


def test_notebooks_are_documented():
    text = (FOLDER / "README.md").read_text("utf-8")
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in text] == []
    assert PICTURES.keys() == {path.stem for path in NOTEBOOKS}
