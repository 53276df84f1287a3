"""``attncontrol edit --photo``: pictures that exist."""

import functools
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from typer.testing import CliRunner

from attncontrol import load, record, retrace, sprites
from attncontrol.batch import edit_photos, edit_sources
from attncontrol.batch.edit_choice import chosen
from attncontrol.batch.edit_names import weaker_and_stronger
from attncontrol.batch.options import load_pipeline
from attncontrol.cli import app
from attncontrol.families.known import family_of
from attncontrol.inversion.trajectory import Trajectory
from attncontrol.sprites.scenes import Thing, compose, render
from tests.kit.zoo import sana, sd, sd3
from tests.kit.zoo_chat import zimage

PROMPT, TO = "a red cat and a blue frog", "a green cat and a blue frog"
STEPS = ("--steps", 2)
runner = CliRunner()


def invoke(*args):
    result = runner.invoke(app, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback is never an answer
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def scene():
    return render(compose((Thing("cat", "red"), Thing("frog", "blue")), np.random.default_rng(4)))[
        0
    ]


@pytest.fixture
def photo(scene, tmp_path):
    """128 x 96 pixels."""
    file = tmp_path / "photo.png"
    Image.fromarray(scene[16:112]).save(file)
    return file


@pytest.fixture
def inversions(monkeypatch):
    """Counts them."""
    counted, invert = [], edit_photos.invert

    def count(*args, **kwargs):
        counted.append(kwargs)
        return invert(*args, **kwargs)

    monkeypatch.setattr(edit_photos, "invert", count)
    return counted


def pixels(file):
    with Image.open(file) as picture:
        return np.asarray(picture).astype(int)


def edited(photo, out, *more, to=TO):
    line = "edit", "--photo", photo, PROMPT, "--to", to, *STEPS, "--out", out, "--json", *more
    code, text, error = invoke(*line)
    assert code == 0, error
    return json.loads(text)


def test_a_photo_is_inverted_once_and_its_edits_repeat(photo, inversions, tmp_path):
    run = edited(photo, tmp_path / "one", "--compare")
    assert [row["role"] for row in run["pictures"]] == ["source", "p2p", "p2p-0.4", "p2p-1"]
    assert all(
        (tmp_path / "one" / name).exists() for row in run["pictures"] for name in row["sha256"]
    )
    source, changed, *_ = (pixels(tmp_path / "one" / row["file"]) for row in run["pictures"])
    assert source.shape == (96, 128, 3)
    assert np.abs(source - pixels(photo)).mean() < 6  # what the autoencoder loses
    cat, frog = np.s_[10:60, 10:70], np.s_[66:, 80:]
    assert np.abs(changed - source)[cat].mean() > 5 * np.abs(changed - source)[frog].mean()

    (file,) = tmp_path.glob("photo-*.trajectory.safetensors")
    assert Trajectory.load(file).prompts == (PROMPT,)
    again = tmp_path / "again"
    code, _, error = invoke("edit", "--from", tmp_path / "one" / "run.json", "--out", again)
    assert code == 0, error
    assert json.loads((again / "run.json").read_text())["seal"] == run["seal"]
    assert len(inversions) == 1
    Image.fromarray(pixels(photo)[::-1].astype(np.uint8)).save(photo)
    code, _, error = invoke("edit", "--from", again / "run.json", "--out", tmp_path / "third")
    assert code == 2
    assert "is not that of the run: its bytes have changed" in error


def test_a_photo_is_inverted_as_its_mask_is_cropped(scene, inversions, tmp_path):
    """Not scaled to the size that it is cropped to; and it is found again."""
    photo, odd = tmp_path / "photo.png", scene[:101, :119]
    Image.fromarray(odd).save(photo)
    for out in ("one", "two"):
        edited(photo, tmp_path / out)
    (file,) = tmp_path.glob("photo-*.trajectory.safetensors")
    assert np.array_equal(Trajectory.load(file).shown[0].numpy(), odd[2:98, 3:115])
    assert len(inversions) == 1


def test_edits_that_need_the_photo_in_no_batch_are_those_made_beside_it(
    photo, inversions, tmp_path, monkeypatch
):
    """Of three strengths; the photo is kept while it is inverted."""
    rows, batches = [], {"kept": [1, 1, *[2, 2] * 3], "beside": [4, 4] * 3}
    forward = UNet2DConditionModel.forward

    def counted(unet, sample, *args, **kwargs):
        rows.append(len(sample))
        return forward(unet, sample, *args, **kwargs)

    monkeypatch.setattr(UNet2DConditionModel, "forward", functools.wraps(forward)(counted))
    made = {}
    for name, expected in batches.items():
        if name == "beside":
            monkeypatch.setattr(edit_sources, "_LIMIT", 0.0)
        run = edited(photo, tmp_path / name, "--compare")
        assert rows[-len(expected) :] == expected
        made[name] = [tmp_path / name / file for row in run["pictures"] for file in row["sha256"]]
    assert len(inversions) == 1
    assert [file.name for file in made["kept"]] == [file.name for file in made["beside"]]
    for kept, beside in zip(*made.values(), strict=True):
        assert np.abs(pixels(kept) - pixels(beside)).max() <= 1


def test_what_a_trajectory_depends_on_is_in_its_name(photo, inversions, tmp_path, model):
    by = "--model", model
    edited(photo, tmp_path / "one", *by)
    (file,) = tmp_path.glob("*.trajectory.safetensors")
    edited(photo, tmp_path / "two", *by, "--method", "masactrl", "--guidance", 3)
    assert len(inversions) == 1
    edited(photo, tmp_path / "three", *by, "--inversion", "ddim")
    edited(photo, tmp_path / "four", *by, "--height", 64, "--width", 64)
    assert len(inversions) == 3
    others = sorted(set(tmp_path.glob("*.trajectory.safetensors")) - {file})
    assert len(others) == 2
    shutil.copy(others[0], file)  # of something else
    edited(photo, tmp_path / "five", *by)
    file.write_bytes(file.read_bytes()[:-1])  # damaged
    edited(photo, tmp_path / "six", *by)
    assert len(inversions) == 5
    assert Trajectory.load(file).size == (96, 128)


def test_a_thing_of_a_photo_is_removed_and_its_maps_are_kept(photo, tmp_path):
    line = "edit", "--photo", photo, PROMPT, "--remove", "frog", *STEPS, "--record"
    code, _, error = invoke(*line, "--out", tmp_path / "alone")
    assert code == 0, error
    run = json.loads((tmp_path / "alone" / "run.json").read_text())
    source, alone = (pixels(tmp_path / "alone" / row["file"]) for row in run["pictures"])
    assert np.abs(source - pixels(photo)).mean() < 6
    cat, frog = np.s_[10:60, 10:70], np.s_[66:, 80:]
    assert np.abs(alone - source)[frog].mean() > 5 * np.abs(alone - source)[cat].mean()
    assert len(list((tmp_path / "alone").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("change", [("--move", "cat=0.2,0"), ("--to", TO, "--method", "blend")])
def test_only_what_is_white_in_a_mask_changes(photo, tmp_path, change):
    white = np.zeros((96, 128), np.uint8)
    white[6:70, 6:90] = 255
    Image.fromarray(white).save(mask := tmp_path / "mask.png")
    line = "edit", "--photo", photo, PROMPT, "--mask", mask, *change, *STEPS, "--compare"
    code, _, error = invoke(*line, "--out", tmp_path / "one")
    assert code == 0, error
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    source, changed, *others = (pixels(tmp_path / "one" / row["file"]) for row in run["pictures"])
    for one in (changed, *others):
        differs = (one != source).any(-1)
        assert not differs[white == 0].any()
        assert differs[white > 0].mean() > 0.3
    if "--method" in change:
        again = "edit", "--from", tmp_path / "one" / "run.json", "--out", tmp_path / "two"
        assert invoke(*again)[0] == 0
        assert json.loads((tmp_path / "two" / "run.json").read_text())["seal"] == run["seal"]
        Image.fromarray(255 - white).save(mask)
        code, _, error = invoke(*again[:-1], tmp_path / "three")
        assert code == 2
        assert "mask.png is not that of the run: its bytes have changed" in error


def test_a_new_thing_in_a_mask_has_the_noise_of_every_seed(photo, inversions, tmp_path):
    white = np.zeros((96, 128), np.uint8)
    white[6:90, 6:60] = 255
    Image.fromarray(white).save(mask := tmp_path / "mask.png")
    more = "--mask", mask, "--method", "blend", "--seeds", "1,2", "--compare"
    run = edited(photo, tmp_path / "one", *more, to=f"{PROMPT} and a dog")
    shown = {(row["role"], row["seed"]): pixels(tmp_path / "one" / row["file"])
             for row in run["pictures"]}  # fmt: skip
    source = shown["source", 1]
    assert np.array_equal(shown["source", 2], source)
    one, other = shown["blend", 1], shown["blend", 2]
    for changed, beside in ((one, source), (other, source), (one, other)):
        differs = np.abs(changed - beside).max(-1)
        assert not differs[white == 0].any()
        assert differs[white > 0].mean() > 5
    assert len(inversions) == 1
    again = tmp_path / "again"
    assert invoke("edit", "--from", tmp_path / "one" / "run.json", "--out", again)[0] == 0
    assert json.loads((again / "run.json").read_text())["seal"] == run["seal"]


@pytest.mark.parametrize("method", ["blend", "masactrl"])
def test_auto_steers_the_edit_of_a_photo_and_not_the_photo(method, photo, tmp_path):
    """Of one that is kept, and of one that is made in the batch."""
    plain, steered = (
        [pixels(tmp_path / name / row["file"]) for row in run["pictures"]]
        for name in (method, f"{method}+auto")
        for run in [edited(photo, tmp_path / name, "--method", name)]
    )
    assert np.array_equal(plain[0], steered[0])
    assert np.abs(plain[1] - steered[1]).max() > 5


def test_a_mask_is_made_fit_as_its_photo_is(scene, tmp_path):
    Image.fromarray(scene[16:111]).save(tmp_path / "photo.png")  # of which the model takes 88 or so
    white = np.zeros((95, 128), np.uint8)
    white[40:60, 30:50] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    given = "--photo", tmp_path / "photo.png", "--mask", tmp_path / "mask.png"
    line = "edit", *given, PROMPT, "--to", TO, "--method", "blend", *STEPS
    code, _, error = invoke(*line, "--out", tmp_path / "one")
    assert code == 0, error
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    source, changed = (pixels(tmp_path / "one" / row["file"]) for row in run["pictures"])
    top = (95 - len(source)) // 2
    differs = np.argwhere((source != changed).any(-1))
    assert (differs.min(0) >= (40 - top, 30)).all()
    assert (differs.max(0) < (60 - top, 50)).all()
    assert len(differs) > 200


def test_generated_pictures_have_masks_too(tmp_path):
    white = np.zeros((128, 128), np.uint8)
    white[:, :64] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    line = "edit", PROMPT, "--to", TO, "--mask", tmp_path / "mask.png", *STEPS, "--seeds", "0,1"
    code, _, error = invoke(*line, "--out", tmp_path / "one")
    assert code == 0, error
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    by = {
        (row["role"], row["seed"]): pixels(tmp_path / "one" / row["file"])
        for row in run["pictures"]
    }
    for seed in (0, 1):
        differs = (by["source", seed] != by["p2p", seed]).any(-1)
        assert differs[:, :64].any()
        assert not differs[:, 64:].any()


def test_every_step_of_a_photo_is_recorded_on_the_way_that_edits_take(photo, inversions, tmp_path):
    edited(photo, tmp_path / "edit")
    line = "record", PROMPT, "--photo", photo, *STEPS, "--out", tmp_path / "record.safetensors"
    code, text, error = invoke(*line, "--json")
    assert code == 0, error
    assert json.loads(text)["steps"] == 2
    assert len(inversions) == 1
    maps = load(tmp_path / "record.safetensors")
    assert (np.asarray(maps.pictures[0]) == pixels(photo)).all()
    assert tuple(maps.steps) == (0, 1)

    pipe, (file,) = load_pipeline("sprites"), tmp_path.glob("*.trajectory.safetensors")
    call = {**sprites.call("sd"), "num_inference_steps": 2, "height": 96, "width": 128}
    with retrace(pipe, Trajectory.load(file)), record(pipe, maps.labels[0]) as own:
        pipe(PROMPT, **call)
    torch.testing.assert_close(maps.mean(), own.mean(), rtol=0, atol=1e-3)  # 16 bits
    assert set(maps.labels[0]) == {
        "red",
        "cat",
        "blue",
        "frog",
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--seed", "1"), "no effect with --photo, whose noise is found"),
        (("--method", "auto"), "no effect with --photo, which nothing guides"),
        (("--inversion", "fireflow"), "for models of rectified flow"),
    ],
)
def test_a_photo_that_is_recorded_has_neither_noise_nor_guide(photo, tmp_path, more, message):
    out = tmp_path / "record.safetensors"
    code, _, error = invoke("record", PROMPT, "--photo", photo, *more, "--out", out)
    assert code == 2
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("make", "to", "mask", "method", "why"),
    [
        (sd, TO, False, "p2p", "right in 89 % on the UNet"),
        (sd3, TO, True, "replace@0.6+auto", "70 % on SD3, p2p without in 46; auto steers the edit"),
        (sd, f"{PROMPT} and a dog", False, "blend@0.3+auto", "nothing was added to 48 photos"),
        (sd3, f"{PROMPT} and a dog", True, "blend+auto", "new noise in the mask"),
        (sd, "a frog", True, "p2p", "right in 91 % on the UNet"),
    ],
)
def test_auto_chooses_for_a_photo_what_was_best_for_photos(make, to, mask, method, why):
    pipe = make()
    found = chosen(PROMPT, to, pipe, family_of(pipe), photo=True, mask=mask)
    assert found[0] == method
    assert why in found[1]


def test_a_scheduler_that_cannot_be_inverted_is_replaced(photo, tmp_path):
    line = "edit", "--photo", photo, PROMPT, "--to", TO, "--model", "sprites-pixart", "--steps", 2
    code, _, error = invoke(*line, "--out", tmp_path / "one")
    assert code == 0, error
    assert "DPMSolverMultistepScheduler cannot be inverted: DDIM's scheduler" in error
    run = json.loads((tmp_path / "one" / "run.json").read_text())
    assert run["settings"]["scheduler"]["_class_name"] == "DDIMScheduler"


@pytest.mark.parametrize("make", [sana, zimage])
def test_photos_of_newer_models(make, photo, tmp_path):
    """One that would change the size, one whose guidance counts from 0."""
    make().to(torch.float32).save_pretrained(tmp_path / "model")
    more = "--model", tmp_path / "model", *STEPS, "--height", 64, "--width", 96
    run = edited(photo, tmp_path / "one", "--method", "replace", *more)
    source = next(row for row in run["pictures"] if row["role"] == "source")
    assert pixels(tmp_path / "one" / source["file"]).shape == (64, 96, 3)
    (file,) = tmp_path.glob("photo-*.trajectory.safetensors")
    assert Trajectory.load(file).course.facts.branches == ("cond",)
    out = tmp_path / "maps.safetensors"
    code, _, error = invoke("record", PROMPT, "--photo", photo, *more, "--out", out)
    assert code == 0, error
    assert load(out).about["steps"] == STEPS[1]
    assert len([*tmp_path.glob("photo-*.trajectory.safetensors")]) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--photo", "nothing.png"), "nothing.png does not exist"),
        (("--photo", "text.png"), "text.png is no picture that can be read"),
        (("--photo", "folder"), "folder is a folder; give one picture file"),
        (("--photo", "photo.png", "--seeds", "1"), "no effect with --photo, whose noise is found"),
        (("--photo", "photo.png", "--inversion", "magic"), "choose from exact, pnp-inversion"),
        (("--photo", "photo.png", "--region", "a cat=0,0,1,1"), "regions take nothing from the"),
        (("--photo", "photo.png", "--mask", "black.png", "--seeds", "1"), "whose noise is found"),
        (("--inversion", "ddim"), "only with --photo"),
        (("--photo", "photo.png", "--mask", "text.png"), "text.png is no picture that can be"),
        (("--photo", "photo.png", "--mask", "none.png"), "none.png does not exist"),
        (("--photo", "photo.png", "--mask", "small.png"), "64 x 64 pixels, the photo 128 x 96"),
        (("--photo", "photo.png", "--mask", "black.png"), "the mask is black, so nothing may"),
        (("--mask", "small.png"), "has 64 x 64 pixels, the picture 128 x 128"),
        (("--photo", "photo.png", "--inversion", "fireflow"), "for models of rectified flow"),
        (("--photo", "photo.png", "--inversion", "null-text", "--guidance", "1"), "both branches"),
    ],
)
@pytest.mark.usefixtures("photo")
def test_bad_input_is_refused_before_anything_is_written(tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    Image.new("L", (128, 96)).save(tmp_path / "black.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "small.png")
    before = sorted(path.name for path in tmp_path.iterdir())
    to = () if "--region" in more else ("--to", TO)
    code, _, error = invoke("edit", PROMPT, *to, *more, "--out", "out")
    assert code == 2
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_strengths_beside_that_of_a_method():
    assert weaker_and_stronger("p2p") == ["p2p@0.4", "p2p@1"]
    assert weaker_and_stronger("p2p@0.6") == ["p2p@0.3", "p2p@1"]
    assert weaker_and_stronger("p2p@0.6+auto") == ["p2p@0.3+auto", "p2p@1+auto"]
    assert weaker_and_stronger("style") == ["style@0.5"]
    assert weaker_and_stronger("layout+blend") == []
