"""How the house is built: which folder may import which, how long files and functions are, what is
raised, and that test modules stand alone. The rules have no exceptions; late imports count."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import attncontrol
from attncontrol import errors

SOURCE = Path(attncontrol.__file__).parent
ROOT = Path(__file__).parents[1]
ORDER = (
    "version", "errors", "axes", "listing", "checks", "writing", "prompts", "attention", "maps",
    "families", "objectives", "losses", "edits", "running", "inversion", "verbs", "analysis",
    "export", "inspector", "sprites", "batch", "jobs", "bench", "scores", "report", "app",
    "cli", "__main__",
)  # fmt: skip
VALUES = {"version", "errors", "axes", "listing", "checks"}
NARROWER = {  # than the order alone allows
    "prompts": VALUES,
    "attention": VALUES | {"prompts"},
    "maps": VALUES | {"writing", "prompts", "attention"},
    "families": VALUES | {"prompts", "attention"},
    "objectives": VALUES | {"prompts", "attention", "maps"},
    "losses": VALUES | {"prompts", "maps", "objectives"},
    "edits": VALUES | {"prompts", "attention"},
    "export": VALUES | {"writing", "prompts", "maps"},
    "inspector": VALUES | {"prompts", "maps"},
    "sprites": VALUES | {"prompts", "writing"},
}
EXTERNAL = {  # package: where it may be imported
    "diffusers": ("attention", "families", "running", "sprites", "batch"),
    "spacy": ("prompts/parser",),
    "matplotlib": ("export", "bench"),
    "skimage": ("bench",),
    "pandas": ("export", "app"),
    "xarray": ("export",),
    "zarr": ("export",),
    "typer": ("cli",),
    "rich": ("cli", "batch", "bench", "sprites/training"),
    "jinja2": ("inspector",),
    "pydantic": ("maps", "batch", "jobs"),
    "yaml": ("jobs",),
    "pyarrow": ("report",),
    "filelock": ("writing",),
    "fsspec": ("jobs/places",),
    "ray": ("jobs/on_ray",),
    "gradio": ("app",),
    "starlette": ("app",),
}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
TESTS = sorted((ROOT / "tests").rglob("*.py"))
OTHERS = sorted(path for name in ("pipelines", "samples") for path in (ROOT / name).rglob("*.py"))


def named(path: Path) -> str:
    """Of a module: ``attncontrol.verbs.record``; of a package without ``__init__``."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {named(path): path for path in [SOURCE / "__init__.py", *FILES]}
short = {"ids": lambda path: str(path.relative_to(SOURCE))}
below_root = {"ids": lambda path: str(path.relative_to(ROOT))}


def read(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> set[str]:
    """Modules and names, also those that are imported late or for types only."""
    names = set()
    for node in ast.walk(read(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules_of(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    own = {name for name in imported(path) if name.split(".")[0] == "attncontrol"}
    return {name if name in MODULES else name.rpartition(".")[0] for name in own}


def folder_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, **short)
def test_imports_point_downwards(path):
    own = folder_of(path)
    assert own in ORDER
    allowed = NARROWER.get(own, set(ORDER[: ORDER.index(own)])) | {own}
    from_package = {name for name in imported(path) if name.startswith("attncontrol.")}
    assert {name.split(".")[1] for name in from_package} - {"__version__"} <= allowed


@pytest.mark.parametrize("path", FILES, **short)
def test_foreign_packages_stay_where_they_belong(path):
    place = path.relative_to(SOURCE).with_suffix("").as_posix() + "/"
    packages = {name.split(".")[0] for name in imported(path)}
    for package in packages & set(EXTERNAL):
        assert place.startswith(tuple(f"{folder}/" for folder in EXTERNAL[package])), package
    if folder_of(path) in ("losses", "objectives", "edits", "maps"):
        assert not packages & {"diffusers", "transformers", "spacy"}


def test_modules_import_each_other_in_no_circle():
    needs = {name: modules_of(path) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_few_modules_lie_loose_in_the_package():
    """But for those that Python looks for there: __init__ and __main__."""
    assert len([path for path in SOURCE.glob("*.py") if path.stem[:2] != "__"]) <= 5


def test_every_folder_says_what_it_holds():
    for folder in (path for path in SOURCE.iterdir() if list(path.glob("*.py"))):
        assert ast.get_docstring(read(folder / "__init__.py")), folder.name


@pytest.mark.parametrize("path", [SOURCE / "__init__.py", *FILES, *OTHERS, *TESTS], **below_root)
def test_lines_stay_within_100_columns(path):
    lines = enumerate(path.read_text("utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > 100] == []


@pytest.mark.parametrize("path", [*FILES, *OTHERS], **below_root)
def test_files_and_functions_stay_small(path):
    """Lines of a function: with its signature, without its docstring."""
    methods = path.parent.name in ("losses", "edits")
    assert len(path.read_text("utf-8").splitlines()) <= (80 if methods else 250)
    assert {name: size for name, size in sizes(path) if size > 40} == {}


def sizes(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(read(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = node.body[0] if ast.get_docstring(node) else None
            spent = text.end_lineno - text.lineno + 1 if text else 0
            yield node.name, node.end_lineno - node.lineno + 1 - spent


LEAVES = {
    cls.__name__
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, Exception) and not cls.__subclasses__()
}
PROTOCOLS = {  # of Python: what a function of this name has to raise
    "__getitem__": {"KeyError", "IndexError"},
    "__getattr__": {"AttributeError"},
    "__setattr__": {"AttributeError"},
    "__delattr__": {"AttributeError"},
}
TO_THE_TERMINAL = {"typer.BadParameter", "typer.Exit"}


class Raised(ast.NodeVisitor):
    """What a file raises where: (function, name or None for a bare ``raise``, line)."""

    def __init__(self, path: Path):
        self.at, self.found, self.abstract = "", [], False
        self.visit(read(path))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = self.at, self.abstract
        self.at = node.name
        self.abstract = any("abstract" in ast.unparse(each) for each in node.decorator_list)
        self.generic_visit(node)
        self.at, self.abstract = before

    def visit_Raise(self, node: ast.Raise) -> None:
        cls = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if not (self.abstract and cls is not None and ast.unparse(cls) == "NotImplementedError"):
            self.found.append((self.at, ast.unparse(cls) if cls else None, node.lineno))


@pytest.mark.parametrize("path", FILES, **short)
def test_what_is_raised_is_a_leaf_of_the_error_tree(path):
    """Or: raised again, a signal of this file, what a protocol of Python asks for, or what the
    command line shows."""
    signals = {
        node.name
        for node in ast.walk(read(path))
        if isinstance(node, ast.ClassDef) and node.name.startswith("_")
    }
    allowed = LEAVES | signals | {None}
    if folder_of(path) == "cli":
        allowed |= TO_THE_TERMINAL
    raised = Raised(path).found
    assert [each for each in raised if each[1] not in allowed | PROTOCOLS.get(each[0], set())] == []


WRITES = {"write_text", "write_bytes", "mkdir", "rmdir", "touch", "unlink", "rename", "symlink_to"}
"""Methods of what is written."""
WRITERS = {  # functions of what is written, and where among their arguments it is
    "save": 0, "to_csv": 0, "to_zarr": 0, "to_netcdf": 0, "to_json": 0, "savefig": 0, "savez": 0,
    "savez_compressed": 0, "dump": 1, "save_file": 1, "tofile": 0, "rmtree": 0, "remove": 0,
    "renames": 1, "replace": 1, "copy": 1, "copyfile": 1, "copytree": 1, "move": 1, "makedirs": 0,
    "write_table": 1,
}  # fmt: skip
OF_PATHS = {"os", "shutil"}  # whose functions are no methods of strings or records
STREAMS = ("io.BytesIO", "BytesIO")
THE_KERNEL = ("batch/memory.py", "_CLEAR.write_text('5')")  # clears a count; nothing is kept


class Written(ast.NodeVisitor):
    """Writes of a file that do not go to what ``writing.whole`` gave: the name that it bound, a
    parameter of its type ``Unfinished``, a stream in memory, or what is made of one of these."""

    def __init__(self, path: Path):
        self.good, self.found = set(), []
        self.visit(read(path))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, given = self.good, [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = {each.arg: ast.unparse(each.annotation) for each in given if each.annotation}
        self.good = before - {each.arg for each in given}
        self.good |= {name for name, kind in named.items() if kind in ("Unfinished", *STREAMS)}
        self.generic_visit(node)
        self.good = before

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.visit(item.context_expr)
            if item.optional_vars is not None:
                self.bind(item.optional_vars, item.context_expr)
        for each in node.body:
            self.visit(each)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            names, values = [target], [node.value]
            if isinstance(target, ast.Tuple):
                names = target.elts
                values = getattr(node.value, "elts", [node.value] * len(names))
            for name, value in zip(names, values, strict=False):
                self.bind(name, value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.bind(node.target, node.value)

    def bind(self, target: ast.expr, value: ast.expr) -> None:
        name = ast.unparse(target)
        self.good = self.good | {name} if self.is_good(value) else self.good - {name}

    def is_good(self, target: ast.expr) -> bool:
        """``part``, ``part / "a"``, ``str(part)``, ``part.open("wb")``."""
        while not isinstance(target, ast.Name):
            if isinstance(target, ast.Call) and ast.unparse(target.func) in ("whole", *STREAMS):
                return True
            if isinstance(target, ast.BinOp):
                target = target.left
            elif isinstance(target, ast.Attribute):
                target = target.value
            elif isinstance(target, ast.Call) and isinstance(target.func, ast.Attribute):
                target = target.func.value
            elif isinstance(target, ast.Call) and ast.unparse(target.func) in ("str", "Path"):
                target = target.args[0]
            else:
                return False
        return target.id in self.good

    def visit_Call(self, node: ast.Call) -> None:
        written = self.target(node)
        if written is not None and not self.is_good(written):
            self.found.append(ast.unparse(node))
        self.generic_visit(node)

    def target(self, node: ast.Call) -> ast.expr | None:
        """What a call writes, if it does."""
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        name = node.func.attr if owner else ast.unparse(node.func)
        if name in ("open", "ZipFile", "TarFile"):
            modes = [*node.args, *(each.value for each in node.keywords if each.arg == "mode")]
            is_mode = [
                bool(re.fullmatch("'[wax][bt+]*'|'r[bt]*[+][bt]*'", ast.unparse(mode)))
                for mode in modes
            ]
            if not any(is_mode):
                return None
            return node.args[0] if node.args and not is_mode[0] else owner
        if name in WRITES:
            return owner
        of_paths = owner is not None and ast.unparse(owner) in OF_PATHS
        if name == "replace" and owner and not of_paths and len(node.args) == 1:
            return owner  # of a path; that of a string takes two, that of a dataclass names them
        ambiguous = name in ("replace", "remove", "copy", "move", "dump") and not of_paths
        own = owner is None and name in ("save", "to_csv", "to_zarr")  # of this package
        if name not in WRITERS or ambiguous or own:
            return None
        known = [each.value for each in node.keywords if each.arg in ("file", "path", "filename")]
        return (node.args[WRITERS[name] :] + known)[0]


@pytest.mark.parametrize("path", FILES, **short)
def test_all_that_is_written_goes_through_one_module(path):
    place = path.relative_to(SOURCE).as_posix()
    if place == "writing.py" or place.startswith("sprites/training/"):
        return
    found = [(place, each) for each in Written(path).found]
    assert [each for each in found if each != THE_KERNEL] == []
    assert "Unfinished" not in {
        ast.unparse(node.func) for node in ast.walk(read(path)) if isinstance(node, ast.Call)
    }


@pytest.mark.parametrize(
    ("line", "writes"),
    [
        ("out.write_text(x)", True), ("open(out, 'w')", True), ("open(out, mode='ab')", True),
        ("open(out)", False), ("out.open('rb')", False), ("Image.open(out)", False),
        ("image.save(out / 'a.png')", True), ("image.save(io.BytesIO())", False),
        ("table.to_csv(out)", True), ("os.replace(a, b)", True), ("a.replace(b)", True),
        ("text.replace('a', 'b')", False), ("maps.replace(layers=a)", False),
        ("save_file(tensors, out)", True), ("shutil.rmtree(out)", True), ("out.mkdir()", True),
        ("with whole(out) as part: part.mkdir(); image.save(part / f'{a}.png')", False),
        ("with whole(out) as part, part.open('wb') as f: np.savez(f, a=1)", False),
        ("with whole(out) as part: out.write_text(x)", True),
        ("def f(part: Unfinished): save_file(tensors, part)", False),
        ("def f(part: Path): save_file(tensors, part)", True),
        ("with whole(out) as part:\n part = out\n part.write_text(x)", True),
    ],
)  # fmt: skip
def test_a_write_is_seen(tmp_path, line, writes):
    (tmp_path / "a.py").write_text(line)
    assert bool(Written(tmp_path / "a.py").found) == writes


@pytest.mark.parametrize("path", TESTS, **below_root)
def test_no_test_module_imports_another(path):
    assert not [name for name in imported(path) if name.startswith("tests.test_")]


def test_public_names_exist():
    assert len(attncontrol.__all__) <= 15
    for name in attncontrol.__all__:
        assert getattr(attncontrol, name) is not None
