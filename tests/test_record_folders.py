"""Folders that get the steps of a run: one run, whole or called partial, and nothing else lost."""

import json
import logging
import shutil

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attncontrol import load, record, save
from attncontrol.errors import RecordError, SettingError, WriteError
from attncontrol.maps.opened import path_of
from attncontrol.maps.streaming import Stream, placed
from tests.kit.records import made
from tests.kit.sd import run


def recording(steps=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers = {"a": torch.rand(1, 1, steps, 2, 3, 4, 3, generator=generator)}
    return made(layers)


def stream(folder, maps, *, count=None, last=True):
    """Writes the first ``count`` steps of a record; of all of them the last one knows."""
    steps = Stream(folder, "float32")
    count = len(maps.steps) if count is None else count
    for step in range(count):
        along = {name: getattr(maps, name)[step : step + 1] for name in ("timesteps", "sigmas")}
        layers = {name: of[:, :, step : step + 1] for name, of in maps.layers.items()}
        one = maps.replace(layers=layers, steps=(step,), **along).recording
        steps.write(one, last=last and step == count - 1)


@pytest.fixture
def folder(tmp_path):
    stream(tmp_path / "run", recording())
    return tmp_path / "run"


def test_the_files_of_a_run_know_each_other(folder):
    said = []
    for file in sorted(folder.iterdir()):
        with safe_open(file, "pt") as tensors:
            said.append(json.loads(tensors.metadata()["attncontrol"]))
    assert len({each["run"] for each in said}) == 1
    assert [(each["index"], each["total"]) for each in said] == [(0, None), (1, None), (2, 3)]
    back = load(folder)
    assert back.partial is None
    assert torch.equal(back.layers["a"], recording().layers["a"])


def other_run(folder):
    stream(folder.parent / "other", recording(seed=1))
    shutil.copy(folder.parent / "other" / "step-0001.safetensors", folder)


def doubled(folder):
    shutil.copy(folder / "step-0001.safetensors", folder / "step-0003.safetensors")


def swapped(folder):
    (folder / "step-0000.safetensors").rename(folder / "x")
    (folder / "step-0001.safetensors").rename(folder / "step-0000.safetensors")
    (folder / "x").rename(folder / "step-0001.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_run, r"step-0001.safetensors is of another run than step-0000.safetensors"),
        (doubled, r"step-0003.safetensors holds step 1, not the one that its name says"),
        (swapped, r"holds step [01], not the one that its name says"),
        (lambda f: (f / "step-0001.safetensors").unlink(), "step-0002.* a step is missing"),
        (lambda f: (f / "step-0000.safetensors").unlink(), "step-0001.* a step is missing"),
    ],
    ids=["other run", "doubled", "swapped", "gap", "no first"],
)
def test_files_that_are_no_run_are_refused_by_name(folder, change, message):
    change(folder)
    with pytest.raises(RecordError, match=message):
        load(folder)


def test_a_run_without_its_last_step_is_partial(folder, tmp_path):
    (folder / "step-0002.safetensors").unlink()
    with pytest.warns(UserWarning, match="run is partial: the run was stopped after step 1"):
        back = load(folder)
    assert (back.steps, back.partial) == ((0, 1), "the run was stopped after step 1")
    with_it = save(back.replace(pictures=()), tmp_path / "copy.safetensors")
    assert load(with_it).partial == back.partial


def test_files_of_the_first_version_are_read_and_called_unknown(folder):
    for file in folder.iterdir():
        with safe_open(file, "pt") as tensors:
            said = json.loads(tensors.metadata()["attncontrol"])
        for name in ("run", "index", "total", "partial", "checksums"):
            del said[name]
        save_file(load_file(file), file, {"attncontrol": json.dumps(said)})
    red = torch.full((1, 8, 8, 3), 200, dtype=torch.uint8)
    shown = {"attncontrol": '{"schema": 1}'}
    save_file({"pictures": red}, folder / "pictures.safetensors", shown)
    with pytest.warns(UserWarning, match=r"of version 0\.2\.0, do not say how many steps"):
        back = load(folder)
    assert torch.equal(back.layers["a"], recording().layers["a"])
    assert back.pictures[0].getpixel((0, 0)) == (200, 200, 200)
    save_file({"pictures": red.repeat(2, 1, 1, 1)}, folder / "pictures.safetensors", shown)
    with (
        pytest.warns(UserWarning, match="is partial"),
        pytest.raises(RecordError, match="no pictures of this record"),
    ):
        load(folder)


def test_a_stopped_run_makes_way_and_a_record_stays_until_there_is_another(tmp_path, caplog):
    folder, maps, new = tmp_path / "run", recording(), recording(seed=1)
    stream(folder, maps, last=False)
    with caplog.at_level(logging.WARNING), placed(folder) as place:
        assert place == folder
        assert "run holds steps of a run that was stopped; they are replaced" in caplog.text
        assert len(list(folder.glob("step-*"))) == 3  # until there is a new step
        stream(place, new, count=2)
    assert torch.equal(load(folder).layers["a"], new.layers["a"][:, :, :2])
    assert sorted(each.name for each in folder.iterdir()) == [
        "step-0000.safetensors", "step-0001.safetensors",
    ]  # fmt: skip
    with pytest.raises(KeyboardInterrupt), placed(folder) as place:
        stream(place, maps, count=1)
        raise KeyboardInterrupt
    assert torch.equal(load(folder).layers["a"], new.layers["a"][:, :, :2])
    with placed(folder) as place:
        stream(place, maps)
    assert torch.equal(load(folder).layers["a"], maps.layers["a"])
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_two_runs_into_one_folder(pipe, tmp_path):
    with (
        placed(tmp_path / "run"),
        pytest.raises(WriteError, match="another run writes into"),
        record(pipe, ["cat"], to=tmp_path / "run"),
    ):
        raise AssertionError("the block began")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["photo.png", "step-0007.safetensors", ".git/HEAD", "step-1"])
def test_other_folders_are_refused_before_anything_runs(pipe, folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("theirs")
    with (
        pytest.raises(
            WriteError, match=f"gets no steps of a record: it holds {name.split('/')[0]}"
        ),
        record(pipe, ["cat"], to=folder),
    ):
        raise AssertionError("the block began")
    assert (folder / name).read_text() == "theirs"


@pytest.mark.parametrize("to", ["", " ", "a\0b"])
def test_what_is_no_path_is_refused(pipe, to):
    with pytest.raises(SettingError, match=r"is no path|must be a folder"), record(pipe, to=to):
        raise AssertionError("the block began")
    with pytest.raises(SettingError, match="is no path"):
        load(to)
    with pytest.raises(SettingError, match="is no path"):
        save(recording(), to)
    with pytest.raises(SettingError, match="3 is no path"):
        path_of(3)


@pytest.mark.usefixtures("as_users_have_it")
def test_maps_are_there_whatever_the_pictures_are(pipe):
    with (
        pytest.raises(SettingError, match="pictures are 1 PIL images, one for each prompt, not 1"),
        record(pipe, ["cat"]) as maps,
    ):
        run(pipe)
        maps.pictures = 5
    assert maps["cat"].isfinite().all()


def test_steps_are_there_whatever_the_pictures_are(pipe, tmp_path):
    with (
        pytest.raises(SettingError, match="pictures are 1 PIL images, one for each prompt, not 2"),
        record(pipe, ["cat"], to=tmp_path / "run", steps=[0, 2]) as maps,
    ):
        run(pipe)
        maps.pictures = [Image.new("RGB", (8, 8))] * 2
    back = load(tmp_path / "run")
    assert (back.steps, back.partial, back.pictures) == ((0, 2), None, ())
