"""What the first second costs: no torch until something needs it."""

import subprocess
import sys

import pytest

import attncontrol

HEAVY = ("torch", "diffusers", "transformers", "numpy")
COMMAND = "import sys; from attncontrol.cli import app; sys.argv[0] = 'attncontrol'; app()"


def run(code, *arguments):
    """Standard output, the heavy modules that were imported, and the exit code."""
    watched = f"import atexit, sys\natexit.register(lambda: print('WATCHED', *sys.modules))\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", watched, *arguments], capture_output=True, text=True, timeout=120
    )
    text, _, modules = done.stdout.rpartition("WATCHED ")
    return text, [name for name in HEAVY if name in modules.split()], done.returncode


@pytest.mark.parametrize(
    ("arguments", "expected", "imported"),
    [
        (["--help"], "Record and edit attention", []),
        (["--version"], f"attncontrol {attncontrol.__version__}\n", []),
        (["generate", "--help"], "attention-refocusing", []),
        (["parse", "--json", "a red cat"], '{"subjects": [{"noun": "cat", "modif', ["numpy"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else "",
)
def test_commands_that_need_no_torch(arguments, expected, imported):
    text, heavy, code = run(COMMAND, *arguments)
    assert code == 0
    assert expected in text
    assert heavy == imported  # spaCy computes with numpy


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "a cat", "--method", "magic"],
        ["generate", "a cat", "--method", "boxdiff", "--box", "cat=0,0,64,64"],
        ["record", "a cat", "--seed", "-1"],
        ["bench", "--step-size", "ebama=nan"],
        ["heads", "search", "a cat", "--dtype", "int8"],
        ["edit", "a cat", "--to", "a dog", "--seeds", "2-1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_mistakes_are_found_before_torch(arguments):
    assert run(COMMAND, *arguments) == ("", [], 2)


def test_the_package_is_a_command():
    line = [sys.executable, "-m", "attncontrol", "--version"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == f"attncontrol {attncontrol.__version__}\n"


def test_the_package_is_imported_on_use():
    _, heavy, code = run("import attncontrol; attncontrol.sprites.call('flux')")
    assert (heavy, code) == ([], 0)
    assert run("from attncontrol import Where")[2] == 0


def test_the_namespace_is_what_is_promised():
    folders = {"edits", "losses", "sprites"}
    assert set(dir(attncontrol)) == {*attncontrol.__all__, *folders, "__version__"}
    for name in folders:
        assert getattr(attncontrol, name).__name__ == f"attncontrol.{name}"
    with pytest.raises(AttributeError, match="module 'attncontrol' has no attribute 'nothing'"):
        attncontrol.nothing  # noqa: B018
