"""Pictures with their exact targets, folders of pairs, and the distances of pictures."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attncontrol.bench.edit_suite.tasks import task
from attncontrol.bench.photos import folder as folders
from attncontrol.bench.photos.folder import mask_of, pairs_of, read_folder
from attncontrol.bench.photos.measures import compared, decibels, unedited
from attncontrol.bench.photos.pairs import pairs, scenes
from attncontrol.bench.suites import PHOTOS
from attncontrol.errors import ResultsError
from attncontrol.sprites.scenes import Thing, render
from tests.reference import pictures as slow

MODEL = SimpleNamespace(vae_scale_factor=8, default_sample_size=16)  # 128 pixels


@pytest.fixture(scope="module")
def some():
    return {kind: pairs(kind, 4) for kind in PHOTOS}


@pytest.mark.parametrize("kind", PHOTOS)
def test_scenes_are_the_same_everywhere_and_new(kind):
    first = [scenes(kind, number) for number in range(4)]
    assert first == [scenes(kind, number) for number in range(4)]
    assert first != [scenes(kind, number, 1) for number in range(4)]
    assert not {str(each[0]) for each in first} & {str(task(kind, n)) for n in range(8)}
    assert len({str(each[0]) for each in first}) == 4


def test_one_thing_changes():
    for number in range(12):
        about, before, after, _ = scenes("recolour", number)
        assert before.boxes == after.boxes
        assert [a == b for a, b in zip(before.shown, after.shown, strict=True)] == [False, True]
        assert before.shown[0].noun == after.shown[0].noun == about.before.noun
        for kind in ("swap", "move"):
            about, before, after, move = scenes(kind, number)
            at = before.shown.index(about.before)
            assert at == number % 2
            assert before.boxes[1 - at] == after.boxes[1 - at]
            assert before.shown[1 - at] == after.shown[1 - at] == about.rest
            (left, top, *size), (x, y, *other) = before.boxes[at], after.boxes[at]
            if kind == "move":
                assert (x - left, y - top, other) == (*move, size)
                assert sum(map(abs, move)) == 32
                assert 0 <= min(x, y) <= max(x + size[0], y + size[1]) <= 128
            else:
                assert abs(2 * (x - left) + other[0] - size[0]) <= 2  # the same middle
                assert abs(2 * (y - top) + other[1] - size[1]) <= 2
        for kind in ("add", "remove"):
            about, before, after, _ = scenes(kind, number)
            more, less = (after, before) if kind == "add" else (before, after)
            assert (
                dict(zip(less.shown, less.boxes, strict=True)).items()
                <= dict(zip(more.shown, more.boxes, strict=True)).items()
            )
            assert (len(more.shown), less.shown) == (2, (about.rest,))
        assert before.background == after.background


def test_pictures_of_pairs(some):
    for kind, found in some.items():
        assert [pair.kind for pair in found] == [kind] * 4
        assert len({str(pair) for pair in found}) == 4
        for pair in found:
            source, target = (np.asarray(each) for each in (pair.picture, pair.reference))
            _, before, after, move = scenes(kind, pair.number)
            assert (source == render(before)[0]).all()
            assert (target == render(after)[0]).all()
            assert (source == target)[~pair.changed].all()
            assert (source != target).any(-1)[pair.changed].all()
            assert 0.02 < pair.changed.mean() < 0.5
            assert pair.case.move == move
            assert (pair.source_prompt, pair.prompt) == (before.caption, after.caption)


def test_the_scorer_reads_nearly_all():
    assert [pair.number for pair in pairs("recolour", 16, seed=1)][-1] < 20
    assert pairs("swap", 1)[0].case.task.before == Thing("chair", "green")


def noisy(height, width, seed):
    rng = np.random.default_rng(seed)
    smooth = np.kron(rng.integers(0, 256, (height // 4, width // 4, 3)), np.ones((4, 4, 1)))
    rough = rng.integers(-20, 21, (height, width, 3))
    return (smooth + rough).clip(0, 255).astype(np.uint8)


def test_distances_against_loops():
    one, other = noisy(24, 32, 0), noisy(24, 32, 0)
    other[4:20, 6:25] = noisy(16, 20, 1)[:, 1:]
    changed = np.zeros((24, 32), bool)
    changed[6:18, 8:22] = True
    found, every = compared(one, other, changed), set(np.ndindex(24, 32))
    inside = {tuple(at) for at in np.argwhere(changed).tolist()}
    for name, pixels in (("", every), ("_inside", inside), ("_outside", every - inside)):
        mse = slow.mean_square(one, other, sorted(pixels))
        assert getattr(found, f"mse{name}") == pytest.approx(mse, rel=1e-12)
        assert getattr(found, f"psnr{name}") == pytest.approx(-10 * np.log10(mse), rel=1e-12)
    maps = [slow.similarity(one[..., c] / 255, other[..., c] / 255) for c in range(3)]
    assert found.ssim == pytest.approx(np.mean(maps), abs=1e-9)
    within = np.mean(maps, 0)[changed[5:-5, 5:-5]]
    assert found.ssim_inside == pytest.approx(within.mean(), abs=1e-9)
    assert 0 < found.ssim < 1
    hidden = [np.where(changed[..., None], 0, each) for each in (one, other)]
    black = unedited(one, other, changed)
    assert black.mse_unedited == pytest.approx(slow.mean_square(*hidden, sorted(every)), rel=1e-12)
    assert black.psnr_unedited > found.psnr_outside
    maps = [slow.similarity(*(each[..., c] / 255 for each in hidden)) for c in range(3)]
    assert black.ssim_unedited == pytest.approx(np.mean(maps), abs=1e-9)


def test_distances_at_their_ends():
    one = noisy(16, 24, 2)
    same = compared(one, one, np.ones((16, 24), bool))
    assert (same.ssim, same.mse, same.psnr) == (1, 0, pytest.approx(58.92, abs=0.01))
    assert np.isnan([same.psnr_outside, same.ssim_outside, same.mse_outside]).all()
    assert np.isnan(unedited(one, one, np.ones((16, 24), bool)).psnr_unedited)
    dark = np.full((16, 24, 3), 100, np.uint8)
    assert decibels(dark, dark + np.uint8(10)) == pytest.approx(20 * np.log10(25.5))


def entry(path, mask, **more):
    return {
        "image_path": path, "original_prompt": "a [red] cat", "editing_prompt": "a [blue] cat",
        "editing_instruction": "make it blue", "editing_type_id": "6", "blended_word": "cat cat",
        "mask": mask, **more,
    }  # fmt: skip


def test_masks_are_runs_of_pixels():
    mask = np.random.default_rng(0).random((512, 512)) < 0.3
    mask[[0, -1]] = mask[:, [0, -1]] = True
    assert (mask_of(slow.runs(mask)) == mask).all()
    few = mask_of([512 * 100 + 50, 3, 512 * 200 + 510, 4])
    assert few[100, 50:53].all()
    assert few[1:-1, 1:-1].sum() == 3 + 1 + 1  # and over the edge of a row into the next
    assert few[[0, -1]].all()
    assert few[:, [0, -1]].all()
    assert mask_of([512 * 511 + 500, 4096]).sum() == mask_of([]).sum()  # ends with the picture


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / folders.PICTURES / "6_change_attribute_color_40"
    pictures.mkdir(parents=True)
    entries = {}
    for number in range(3):
        Image.fromarray(noisy(512, 512, number)).save(pictures / f"{number}.png")
        path = f"{pictures.name}/{number}.png"
        entries[f"00{number}"] = entry(path, [512 * 200, 512 * 100], editing_type_id="6")
    entries["002"] |= {"editing_type_id": "12", "mask": []}
    (tmp_path / folders.MAPPING).write_text(json.dumps(entries))
    return tmp_path


def test_folders_of_pairs(folder):
    entries = read_folder(folder)
    assert [(each["number"], folders.kind_of(each)) for each in entries] == [
        (0, "6 change color"), (1, "6 change color"), (2, "12"),
    ]  # fmt: skip
    assert [each["number"] for each in read_folder(folder, 1)] == [0, 2]
    first, _, last = pairs_of(MODEL, folder, entries, None)
    assert str(first) == "a red cat -> a blue cat"
    assert first.picture.size == (128, 128)
    assert first.reference is first.picture
    assert first.case is None
    rows = first.changed[:, 64]
    assert rows[50:75].all()
    assert not rows[4:47].any()
    assert not rows[78:-4].any()
    assert first.changed[[0, -1]].all()
    assert 0 < last.changed.mean() < 0.1
    wide = next(pairs_of(MODEL, folder, entries, (64, 128)))
    assert (wide.picture.size, wide.changed.shape) == ((128, 64), (64, 128))
    big = SimpleNamespace(vae_scale_factor=8, default_sample_size=64)
    whole = next(pairs_of(big, folder, entries, None))
    assert (whole.changed == mask_of([512 * 200, 512 * 100])).all()
    assert (np.asarray(whole.picture) == noisy(512, 512, 0)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": [3]}, r"'001': mask has to be pairs of a start below 262144"),
        ({"mask": [512**2, 1]}, "mask has to be pairs"),
        ({"mask": "3 4"}, "mask is '3 4', and has to be a list"),
        ({"editing_prompt": None}, "editing_prompt is None, and has to be a str"),
        ({"image_path": "elsewhere.jpg"}, "elsewhere.jpg does not exist"),
    ],
)
def test_what_is_wrong_in_a_folder(folder, change, message):
    file = folder / folders.MAPPING
    entries = json.loads(file.read_bytes())
    entries["001"] |= change
    file.write_text(json.dumps(entries))
    with pytest.raises(ResultsError, match=message):
        read_folder(folder)


def test_what_is_no_folder_of_pairs(folder):
    entries = read_folder(folder)
    (folder / folders.PICTURES / entries[0]["image_path"]).write_bytes(b"no picture")
    with pytest.raises(ResultsError, match=r"0\.png cannot be read"):
        list(pairs_of(MODEL, folder, entries, None))
    file = folder / folders.MAPPING
    for text, message in (("{", "is no JSON"), ("[]", "has to map"), ('{"0": 1}', "an entry is")):
        file.write_text(text)
        with pytest.raises(ResultsError, match=message):
            read_folder(folder)
    file.unlink()
    with pytest.raises(ResultsError, match=r"the layout is that of PIE-Bench"):
        read_folder(folder)
