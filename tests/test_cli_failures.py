"""What goes wrong in a command: one line, and exit code 1 while it works, 2 before."""

import warnings
from contextlib import nullcontext

import pytest
import typer
from typer.testing import CliRunner

from attncontrol.cli import app
from attncontrol.cli.failures import clean_errors, clean_warnings, work
from attncontrol.cli.heads import objective_of
from attncontrol.errors import ResultsError, WordError, WriteError

OWN = """from attncontrol import Objective

class Loss(Objective):
    def __init__(self):
        self.weight = 1 / 0
    def __call__(self, maps):
        return 0

def scores(pictures, prompts):
    return [float("nan") for _ in pictures]

def one(pictures, prompts):
    return 1.0
"""


def shown(error, capsys, at_work=False):
    """What is printed of an error, and the exit code."""
    with pytest.raises(typer.Exit) as left, clean_errors(), work() if at_work else nullcontext():
        raise error
    return capsys.readouterr().err, left.value.exit_code


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (WordError("no [/b] here :cat:"), "WordError: no [/b] here :cat:", 2),
        (WriteError("run.csv is not ours"), "WriteError: run.csv is not ours", 2),
        (WordError("no \x1b[31m\x9b"), "WordError: no \\x1b[31m\\x9b", 2),
        (OSError(28, "No space left on device"), "OSError: writing: No space left on device", 1),
        (
            PermissionError(13, "Permission denied", "/x"),
            "PermissionError: /x: Permission denied",
            1,
        ),
        (WordError("a \ud800"), "WordError: a \\ud800", 2),
        (KeyboardInterrupt(), "Interrupted", 130),
    ],
)
def test_one_line(error, line, code, capsys):
    assert shown(error, capsys) == (line + "\n", code)
    assert shown(error, capsys, at_work=True) == (line + "\n", 1 if code == 2 else code)


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(capsys):
    with clean_warnings():
        warnings.warn("SynGen has nothing to do\nfor 'a [/b] cat'", UserWarning, stacklevel=2)
    assert capsys.readouterr().err == "Warning: SynGen has nothing to do for 'a [/b] cat'\n"


@pytest.mark.filterwarnings("default")
def test_commands_warn_in_one_line(model, tmp_path):
    out = str(tmp_path / "out")
    line = ["generate", "a cat", "--method", "syngen", "--model", model, "--steps", "1"]
    result = CliRunner().invoke(app, [*line, "--seeds", "0", "--out", out])
    assert result.exit_code == 0
    said = [each for each in result.stderr.splitlines() if each.startswith("Warning: ")]
    assert len([each for each in said if "SynGen has nothing to do for the" in each]) == 1
    assert "warnings.warn" not in result.stderr


def test_memory(capsys):
    text, code = shown(MemoryError("Unable to allocate 13 GiB\nfor an array"), capsys)
    assert "not enough memory (Unable to allocate 13 GiB); try a smaller --batch" in text
    assert (text.count("\n"), code) == (1, 1)


def test_errors_of_own_code_name_its_line(tmp_path, monkeypatch):
    (tmp_path / "own_fault.py").write_text(OWN)
    (tmp_path / "own_syntax.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    for arguments, place in (
        (["generate", "a cat", "--method", "own_fault:Loss"], "own_fault.py, line 5;"),
        (["record", "a cat", "--method", "own_syntax:f"], "own_syntax.py, line 1;"),
        (["heads", "search", "a cat", "--objective", "own_syntax:f"], "own_syntax.py, line 1;"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert place in result.stderr
        assert result.stderr.count("\n") == 1
        assert "ATTNCONTROL_TRACEBACK=1" in result.stderr
    monkeypatch.setenv("ATTNCONTROL_TRACEBACK", "1")
    result = CliRunner().invoke(app, ["generate", "a cat", "--method", "own_fault:Loss"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_scores_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "own_nan.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    function = objective_of("own_nan:scores")
    with pytest.raises(ResultsError, match=r"must return one finite number per picture: \[nan\]"):
        function(["picture"], ["a cat"])
    with pytest.raises(ResultsError, match=r"1\.0 for 2 pictures"):
        objective_of("own_nan:one")([0, 1], ["a cat"] * 2)


def test_an_unfinished_loss_says_what_it_lacks(tmp_path, monkeypatch):
    (tmp_path / "own_half.py").write_text(OWN.replace("__call__", "loss"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["generate", "a cat", "--method", "own_half:Loss"])
    assert result.exit_code == 2
    assert "must define __call__" in " ".join(result.stderr.replace("\u2502", " ").split())
