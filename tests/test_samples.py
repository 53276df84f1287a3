"""Every sample runs as a script, with few steps, and writes the picture that it announces."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from attncontrol import sprites

FOLDER = Path(__file__).parents[1] / "samples"
SAMPLES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_run(path, tmp_path, monkeypatch):
    call = sprites.call
    monkeypatch.setattr(sprites, "call", lambda name="sd": {**call(name), "num_inference_steps": 2})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "."])
    runpy.run_path(str(path), run_name="__main__")
    (name,) = re.findall(r"writes (\S+\.png)", path.read_text("utf-8"))
    with Image.open(tmp_path / name) as picture:
        assert picture.width > 200
        assert picture.height > 200


def test_samples_are_documented():
    text = (FOLDER.parent / "README.md").read_text("utf-8")
    assert [path.name for path in SAMPLES if f"(samples/{path.name})" not in text] == []
