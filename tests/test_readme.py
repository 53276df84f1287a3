"""The README's Python blocks run in order; its commands name existing options and files."""

import re
import shlex
from pathlib import Path

import typer

from attncontrol.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def test_python_blocks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    namespace = {}
    assert len(blocks) >= 3
    for block in blocks:
        exec(block, namespace)
    assert namespace["image"].size == (128, 128)
    assert namespace["maps"]["cat"].shape == (1, 16, 16)


def test_commands_exist():
    commands = typer.main.get_command(app).commands
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
        for line in block.splitlines()
    ]
    calls = [
        line.split("attncontrol ")[-1] for line in lines if re.search(r"(?:^|/)attncontrol ", line)
    ]
    assert len(calls) >= 5
    for call in calls:
        name, *arguments = shlex.split(call)
        command = commands[name]
        if hasattr(command, "commands"):  # a group
            command = command.commands[arguments.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known


def test_linked_files_exist():
    for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", TEXT):
        assert (ROOT / link).exists(), link
