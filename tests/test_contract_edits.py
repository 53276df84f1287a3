"""What every edit of ``edits`` keeps to. The examples of their docstrings are what is run."""

import ast
import importlib
import inspect
import pkgutil
import textwrap

import pytest

from attncontrol import edits
from attncontrol.attention.edit import Edit
from attncontrol.attention.sites import Where

FILES = [name for _, name, _ in pkgutil.iter_modules(edits.__path__)]
EDITS = [
    cls
    for name in FILES
    for cls in vars(importlib.import_module(f"attncontrol.edits.{name}")).values()
    if inspect.isclass(cls) and cls.__module__ == f"attncontrol.edits.{name}"
    if issubclass(cls, Edit)
]
PROMPTS = ("a red cat and a frog", "a red dog and a frog", "a red frog and a bird")
KINDS = {"self": "sd", "cross": "sd", "joint": "sd3"}
each = pytest.mark.parametrize("cls", EDITS, ids=lambda cls: cls.__name__)


def example(cls):
    """The edit in the example of its docstring."""
    block = cls.__doc__.split("\n    with ")[1] if "\n    with " in cls.__doc__ else ""
    text = textwrap.dedent(inspect.cleandoc(cls.__doc__))
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    with "))
    code = textwrap.dedent("\n".join(lines[start : start + 2]))
    (block,) = ast.parse(code).body
    made = ast.unparse(block.items[0].context_expr.args[1])
    return eval(made, vars(edits) | {cls.__name__: cls, "Where": Where})
