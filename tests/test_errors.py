"""The tree of errors: every leaf is a builtin too, and a test says what its message tells."""

import ast
import builtins
import re
from pathlib import Path

import pytest

from attncontrol import errors

TREE = [
    (match["name"], match["builtin"])
    for match in re.finditer(r"[├└]── (?P<name>\w+)(?: \((?P<builtin>\w+)\))?", errors.__doc__)
]
CLASSES = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type)}
LEAVES = [name for name, cls in CLASSES.items() if not cls.__subclasses__()]


def messages_tested() -> set[str]:
    """Names of errors in ``pytest.raises(NAME, match=...)`` of all tests."""
    names = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.raises":
                said = any(keyword.arg == "match" for keyword in node.keywords)
                names |= {ast.unparse(node.args[0])} if said else set()
    return names


TESTED = messages_tested()


def test_the_tree_in_the_docstring_is_that_of_the_classes():
    assert [name for name, _ in TREE] == [name for name in CLASSES if name != "AttnControlError"]


@pytest.mark.parametrize(("name", "builtin"), [each for each in TREE if each[1]])
def test_errors_are_builtins_too(name, builtin):
    assert issubclass(CLASSES[name], getattr(builtins, builtin))


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_carry_their_message(name):
    error = CLASSES[name]("asked, exists, do")
    assert str(error) == "asked, exists, do"
    assert isinstance(error, errors.AttnControlError)
    assert any(base.__module__ == "builtins" for base in CLASSES[name].__mro__[1:-3])
    assert name in TESTED
