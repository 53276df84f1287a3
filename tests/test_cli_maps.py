"""``attncontrol maps``: one picture or many, one load of the model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import attncontrol
from attncontrol.cli import app, pictures
from attncontrol.errors import SizeError
from tests.kit.tiny import tiny_sd

PROMPT = ["--prompt", "a cat and a frog"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_sd(dtype=torch.float32).save_pretrained(folder)
    return ["--model", str(folder)]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three that can be read, of which two have one stem, and two that cannot."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    for name in ("a.png", "b.jpg", "b.png"):
        Image.fromarray(noise).save(folder / name)
    (folder / "cut.jpg").write_bytes((folder / "b.jpg").read_bytes()[:5000])
    (folder / "notes.txt").write_text("no picture")
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, ["maps", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_many_pictures(model, photos, tmp_path):
    out = tmp_path / "out"
    code, text, said = run(
        photos, *PROMPT, *model, "--out", out, "--csv", "--reading", "along-edges", "--json"
    )
    assert code == 1
    assert f"{photos / 'cut.jpg'} is no picture that can be read" in said
    rows = json.loads(text)
    assert rows == json.loads((out / "maps.json").read_text())
    assert [row.get("record") for row in rows] == [
        "a.safetensors", "b.jpg.safetensors", "b.png.safetensors", None,
    ]  # fmt: skip
    assert [(row["width"], row["height"], row["words"]) for row in rows[:3]] == [
        (80, 128, ["cat", "frog"])
    ] * 3
    assert "truncated" in rows[3]["error"]
    a, b = (attncontrol.load(out / f"{name}.safetensors") for name in ("a", "b.png"))
    assert torch.equal(a["cat"], b["cat"])  # the same picture
    assert (out / "b.png.csv").read_text().startswith("image,")
    with Image.open(out / "a.maps.png") as drawing:
        assert drawing.height > 3 * 128
    alone = tmp_path / "one.safetensors"
    assert run(photos / "a.png", *PROMPT, *model, "--out", alone)[0] == 0
    assert torch.equal(attncontrol.load(alone)["frog"], a["frog"])


@pytest.mark.parametrize("name", ["a.safetensors", "a.csv", "b.png.maps.png", "maps.json"])
def test_files_of_others_are_refused_before_a_model_is_loaded(photos, tmp_path, name):
    (tmp_path / "out").mkdir()
    theirs = tmp_path / "out" / name
    theirs.write_text("a letter")
    line = (photos, *PROMPT, "--model", "none", "--out", tmp_path / "out", "--csv")
    code, _, said = run(*line, "--reading", "mean")
    assert code != 0
    assert f"{name} exists and was not made by this command" in said.replace("- ", "-")
    assert {file.read_text() for file in (tmp_path / "out").iterdir()} == {"a letter"}


def test_patterns_and_names(photos):
    found = pictures.found([f"{photos}/*.png", str(photos / "b.png"), str(photos)])
    assert [path.name for path in found] == ["a.png", "b.png", "b.jpg", "cut.jpg"]
    twice = [photos / "a.png", photos / "b.png", photos.parent / "b.png"]
    assert pictures.stems(twice) == ["a", "b.png.1", "b.png.2"]


def test_the_limit_comes_before_the_pixels(tmp_path):
    Image.new("1", (2000, 1000)).save(tmp_path / "large.png")
    assert pictures.opened(tmp_path / "large.png", 2.0).size == (2000, 1000)
    with pytest.raises(SizeError, match=r"2000 x 1000 pixels, 2 million; more than --limit 1.9"):
        pictures.opened(tmp_path / "large.png", 1.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos/*.gif"], "photos/*.gif: there is no picture"),
        (["photos"], "the records of 4 picture(s) go into a folder"),
        (["photos/cut.jpg"], "is no picture that can be read"),
        (["photos/a.png", "--limit", "0.01"], "more than --limit 0.01"),
        (["photos/a.png", "--words", "dog"], "'dog' is not in the prompt"),
        (["photos/a.png", "--reading", "x"], "choose from mean, along-edges"),
    ],
)
def test_mistakes(arguments, message, photos, tmp_path):
    code, _, said = run(*arguments, *PROMPT, "--out", "x.safetensors")
    assert code == 2
    assert message in said.replace("\u2502 ", "")
    assert list(tmp_path.iterdir()) == [photos]
