"""The READMEs: their Python blocks run in order, commands name existing options, links lead
somewhere; and nothing is missing from the table of methods."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

import attncontrol
from attncontrol import edits, losses, sprites
from attncontrol.cli import app

ROOT = Path(__file__).parents[1]
SOURCE = Path(attncontrol.__file__).parent
MAIN = (ROOT / "README.md").read_text("utf-8")
READMES = [ROOT / "README.md", ROOT / "tests" / "README.md", *sorted(SOURCE.rglob("README.md"))]


def name_of(path):
    return str(path.relative_to(ROOT).parent)


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(text):
    namespace = {}
    for block in blocks(text, "python"):
        exec(compile(block, "a block", "exec"), namespace)
    return namespace


def fewer_steps(monkeypatch, steps):
    call = sprites.call
    monkeypatch.setattr(
        sprites, "call", lambda name="sd": {**call(name), "num_inference_steps": steps}
    )


def test_python_blocks_of_the_main_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewer_steps(monkeypatch, 8)
    namespace = run(MAIN)
    assert namespace["image"].size == (128, 128)
    assert namespace["heat"].shape == (1, 16, 16)
    assert torch.equal(namespace["heat"], namespace["maps"]["cat"])
    assert len(namespace["losses"]) == 4  # the first half of the steps


@pytest.mark.parametrize("model", ["sd3", "flux", "pixart"])
def test_python_blocks_of_the_main_readme_on_the_transformers(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewer_steps(monkeypatch, 2)
    assert '"sd"' in MAIN
    namespace = run(MAIN.replace('"sd"', f'"{model}"'))
    assert namespace["image"].size == (128, 128)
    assert namespace["heat"].shape == (1, 8, 8)


@pytest.mark.parametrize("path", READMES[1:], ids=name_of)
def test_python_blocks_beside_the_code(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewer_steps(monkeypatch, 2)
    run(path.read_text("utf-8"))


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_commands_exist(path):
    commands = typer.main.get_command(app).commands
    lines = [line for block in blocks(path.read_text("utf-8"), "sh") for line in block.splitlines()]
    calls = [
        line.split("attncontrol ")[-1]
        for line in lines
        if re.search(r"(?:^|bin/)attncontrol ", line)
    ]
    assert len(calls) >= {".": 6, "src/attncontrol/cli": 15}.get(name_of(path), 0)
    for call in calls:
        name, *arguments = shlex.split(call)
        command = commands[name]
        if hasattr(command, "commands"):  # a group
            command = command.commands[arguments.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("path", READMES, ids=name_of)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", path.read_text("utf-8")):
        file, _, part = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if part:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            assert part in map(anchor, headings), link


def test_the_main_readme_is_short():
    assert len(MAIN.encode()) <= 12_000
    assert all(
        len(line) <= 100 or line.startswith(("|", "```", "attncontrol", ".venv", "python3"))
        for line in MAIN.splitlines()
    )


def test_the_table_names_every_method():
    named = named_in_tables(MAIN)
    parts = {"Centering", "JointLoss", "Retention", "Segregation"}
    assert classes_of(losses) - named == parts
    assert {*losses.methods()} <= named
    text = (SOURCE / "edits" / "README.md").read_text("utf-8")
    assert classes_of(edits) == named_in_tables(text) & {*edits.__all__}


def named_in_tables(text):
    rows = [line for line in text.splitlines() if line[:1] == "|"]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def classes_of(package):
    return {name for name in package.__all__ if isinstance(getattr(package, name), type)}
