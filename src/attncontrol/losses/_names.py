"""The names of the losses on the command line, read from the text of their files: no torch.

A file is the method of its name: a_star.py is ``a-star``. Its class of the same name makes it, or a
function ``method`` if it has one, from what ``words`` or ``layout`` among their arguments say.
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from attncontrol import listing

Needs = Literal["words", "layout"]


def methods() -> Mapping[str, Needs]:
    """Every method by its name, and what it is made from: words (None: those of the prompt by its
    parse) or a layout."""
    return {name: needs for name, (_, needs) in makers().items()}


@cache
def makers() -> Mapping[str, tuple[str, Needs]]:
    """The class or function of the file of every method, and what it is made from."""
    found: dict[str, tuple[str, Needs]] = {}
    for file, tree in listing.files(str(Path(__file__).parent)).items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == "method":
                taken = {argument.arg for argument in node.args.args}
            elif isinstance(node, ast.ClassDef) and node.name.lower() == file.replace("_", ""):
                taken = _fields(node)
            else:
                continue
            if taken & {"words", "layout"}:  # a function ``method`` comes after the class
                needs: Needs = "layout" if "layout" in taken else "words"
                found[file.replace("_", "-")] = (node.name, needs)
    return MappingProxyType(found)


def _fields(kind: ast.ClassDef) -> set[str]:
    """Of a dataclass."""
    bases = {base.id for base in kind.bases if isinstance(base, ast.Name)}
    targets = [node.target for node in kind.body if isinstance(node, ast.AnnAssign)]
    own = {target.id for target in targets if isinstance(target, ast.Name)}
    return own | ({"layout"} if "OfLayout" in bases else set())
