"""What the files of a folder offer, read from their text: nothing is imported until it is used.

A class whose name has no leading underscore, in a file whose name has none, is public. So
``from attncontrol.losses import SynGen`` works once a file there defines ``class SynGen``, and
``import attncontrol.losses`` needs no torch.
"""

import ast
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attncontrol.errors import SettingError


@cache
def files(folder: str) -> Mapping[str, ast.Module]:
    """Name of every public file of a folder -> its syntax tree."""
    paths = sorted(path for path in Path(folder).glob("*.py") if not path.stem.startswith("_"))
    return MappingProxyType({path.stem: ast.parse(path.read_text("utf-8")) for path in paths})


@cache
def classes(folder: str) -> Mapping[str, str]:
    """Name of every public class of a folder -> its file."""
    return MappingProxyType(
        {
            node.name: file
            for file, tree in files(folder).items()
            for node in tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        }
    )


def namespace(
    package: str, folder: str, others: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` (PEP 562) of a package: the classes of its
    folder and ``others``, name -> file."""
    homes = {**classes(folder), **others}
    names = sorted(homes)

    def __getattr__(name: str) -> Any:  # noqa: N807  # it becomes that of the package
        if name not in homes:
            known = ", ".join(names)
            raise AttributeError(f"{package} has no {name!r}; it has {known}", name=name)
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        vars(sys.modules[package])[name] = value  # found at once from now on, by tools too
        return value

    def __dir__() -> list[str]:  # noqa: N807
        return names

    return names, __getattr__, __dir__


def named(text: str) -> Any:
    """The object of ``"module:name"``, where the module may lie in the current folder. Raises
    SettingError if there is none."""
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise SettingError(f"{text!r} is not of the form module:name, such as my_losses:MyLoss")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0] and error.name != module:
            raise  # it is there, and lacks a module of its own
        raise SettingError(
            f"{text}: there is no module {error.name}, neither installed nor in {here}"
        ) from error
    if name not in vars(imported):
        known = [each for each in vars(imported) if not each.startswith("_")]
        raise SettingError(f"{text}: {module} has no {name}; it has {', '.join(known)}")
    return vars(imported)[name]
