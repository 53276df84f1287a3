"""``attncontrol batch`` and ``attncontrol repeat``."""

import json

import pytest
from typer.testing import CliRunner

from attncontrol.cli import app
from attncontrol.cli.batch import _duration
from attncontrol.jobs import making


def invoke(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(
        f"defaults: {{model: {json.dumps(model)}, steps: 1}}\n"
        "items:\n- {prompt: a red cat, seeds: 0-2}\n- {prompt: a red cat, seed: 0}\n"
    )
    return path


@pytest.fixture(scope="module")
def out(file):
    folder = file.parent / "run"
    code, _, said = invoke("batch", file, "--out", folder, "--batch", 2, "--sheets")
    assert (code, f"3 pictures are in {folder}/pictures" in said) == (0, True), said
    assert len([*(folder / "sheets").iterdir()]) == 1
    return folder


def test_a_check_shows_the_plan(file):
    code, shown, _ = invoke("batch", file, "--check", "--batch", 2, "--json")
    told = json.loads(shown)
    assert code == 0
    assert (told["pictures"], told["calls"], told["repeated"]) == (3, 2, 1)
    assert told["methods"] == {"plain": 3}


def test_a_check_says_how_long_it_takes(file, out):
    code, shown, _ = invoke("batch", file, "--check", "--estimate", "--json")
    told = json.loads(shown)["estimate"]
    assert (code, told["left"], told["measured"]) == (0, 3, 1)
    sizes = [path.stat().st_size for path in (out / "pictures").iterdir()]
    assert told["bytes"] == pytest.approx(sum(sizes) + 3 * 1000, rel=0.05)
    assert 0 < told["seconds"] < 60
    code, _, said = invoke("batch", file, "--check", "--out", out, "--default", "seeds=0-4")
    assert (code, "0 pictures are left: 0 s by one worker" in said) == (0, True), said
    assert "--estimate: it has no effect with no --check" in invoke("batch", file, "--estimate")[2]


@pytest.mark.parametrize(
    ("seconds", "said"), [(3905.2, "1 h 5 min"), (61.0, "1 min 1 s"), (0.2, "0 s")]
)
def test_durations_in_words(seconds, said):
    assert _duration(seconds) == said


def test_the_schema_is_json():
    code, shown, _ = invoke("batch", "--schema")
    assert (code, "prompts" in json.dumps(json.loads(shown))) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give the file of a job"), (["FILE"], "say where the pictures go, or --check"),
        (["FILE", "--out", "a", "--engine", "dask"], "'dask': choose from local, ray"),
        (["FILE", "--out", "a.png"], "this is the name of a file"),
        (["FILE", "--out", "a", "--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["FILE", "--out", "OUT", "--batch", "3"], "batch 2 there, 3 here"),
        (["FILE", "--default", "stepz=2", "--out", "a"], "stepz"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_before(file, out, arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [{"FILE": file, "OUT": out}.get(each, each) for each in arguments]
    code, _, text = invoke("batch", *given)
    assert code in (1, 2)
    assert said in text
    assert not [*tmp_path.rglob("*.png")]


def test_what_fails_ends_with_one(file, tmp_path, monkeypatch):
    def failing(*_):
        raise ValueError("no picture")

    monkeypatch.setattr(making, "paint", failing)
    arguments = ["batch", file, "--out", tmp_path / "run"]
    code, shown, said = invoke(*arguments, "--json")
    told = json.loads(shown)
    assert (code, told["made"], len(told["failed"])) == (1, 0, 3)
    assert "3 failed" in said
    assert {*told["failed"].values()} == {"ValueError: no picture"}


def test_ctrl_c_says_so(file, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "paint", interrupted)
    code, _, said = invoke("batch", file, "--out", tmp_path / "run")
    assert (code, "Interrupted" in said) == (130, True)


def test_a_picture_again(out, tmp_path):
    picture = min((out / "pictures").glob("*.png"))
    code, shown, _ = invoke("repeat", picture, "--out", tmp_path / "again.png", "--json")
    assert (code, json.loads(shown)) == (0, {"same": True, "difference": 0, "changed": False})
    assert (tmp_path / "again.png").exists()
    code, _, said = invoke("repeat", tmp_path / "again.png")
    assert code == 2
    assert "does not tell how it was made" in said
