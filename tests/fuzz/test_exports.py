"""Records of every shape and their files: each page, table, picture or array is made, or one clear
error; files of others are never written over."""

import random
import shutil
import warnings
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from attncontrol import load, save
from attncontrol.attention.sites import Site
from attncontrol.errors import AttnControlError, WriteError
from attncontrol.export import to_csv, to_dataframe, to_npz, to_xarray, to_zarr, write_pictures
from attncontrol.inspector.page import page
from attncontrol.maps.recorded import AttentionMaps
from attncontrol.maps.recording import BranchText
from attncontrol.prompts.tokens import Span, Token
from tests.fuzz import budget
from tests.kit.records import made

PROMPTS = (
    "", "a red cat", "cat", "a\nred\r\ncat", "</script><script>alert(1)</script>", "🐸 " * 5,
    "ein Mädchen", "猫", "x" * 5000, "a cat " * 300, "{{ cat }}", "'\"&<>", "\u202ecat",
    "\x00\x1b[0m",
)  # fmt: skip


def text_of(draw, words):
    prompt = draw.choice(PROMPTS)
    at = [(k, min(k + 3, len(prompt))) for k in range(0, len(prompt), 4)][:20] or [(0, 0)]
    tokens = tuple(Token(k, k, prompt[a:b], a, b, False) for k, (a, b) in enumerate(at))
    labels = draw.choices(["cat", "red", "", "🐸", "<b>", "a\nb", "<end>", prompt[:200]], k=words)
    spans = tuple(
        Span(label, (draw.randrange(len(tokens)),) if draw.random() < 0.8 else ())
        for label in labels
    )
    return prompt, tokens, spans


def texts(draw, images, words, counted):
    """One for every image; no words and no tokens where cells are attended to."""
    found = [text_of(draw, words) for _ in range(images)]
    if not counted:
        found = [(prompt, (), ()) for prompt, *_ in found]
    return BranchText(*map(tuple, zip(*found, strict=True)))


def layer(draw, shape, seed):
    maps = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    kind = draw.randrange(8)
    if kind == 0:
        maps[:, :, draw.randrange(shape[2])] = torch.nan  # it did not run
    elif kind == 1:
        maps.view(-1)[draw.randrange(maps.numel())] = draw.choice([torch.nan, torch.inf, -1.0])
    elif kind == 2:
        maps *= 0.0
    return maps


def record_of(seed):
    """Any that ``load`` could give."""
    draw = random.Random(seed)
    images, branches, steps = (draw.choice([1, 1, 2, 3]) for _ in range(3))
    branches, frames = min(branches, 2), draw.choice([(), (), (), (1,), (2,)])
    direction = draw.choice(["image->text"] * 3 + ["image->image", "text->text", "text->image"])
    words = draw.choice([1, 1, 2, 3, 45])
    kept = draw.random() < 0.7
    layers, sites = {}, {}
    for k in range(draw.randrange(1, 4)):
        grid = (1, draw.choice([1, 7])) if direction.startswith("text") else draw.choice(
            [(1, 1), (1, 9), (4, 4), (3, 5), (8, 2)]
        )  # fmt: skip
        heads = draw.choice([1, 2, 5])
        keys = words if direction != "image->image" else grid[0] * grid[1] * (*frames, 1)[0]
        shape = (images, branches, steps if kept else 1, heads, *frames, *grid, keys)
        name = draw.choice(["mid_block.attentions.{}", "up_blocks.1.a.{}", "x{}", "ä/{}"]).format(k)
        sites[name] = Site(name, draw.choice(["cross", "self"]), heads, draw.choice([1, 2]))
        layers[name] = layer(draw, shape, seed + k)
    names = ("cond", "uncond")[:branches]
    counted = direction != "image->image"
    size = draw.choice([(8, 8), (1, 1), (40, 3), (90, 70)])
    maps = AttentionMaps(
        layers=layers,
        sites=sites,
        **vars(texts(draw, images, words, counted)),
        branches=names,
        steps=tuple(range(steps)),
        timesteps=tuple(float(k) for k in range(steps)),
        sigmas=tuple(draw.choice([None, 1.0]) for _ in range(steps)),
        direction=direction,
        about={"model": draw.choice(PROMPTS), "seeds": [1]},
        partial=draw.choice([None, "the run was stopped after step 1 <b>"]),
        pictures=[Image.new("RGB", size)] * images if draw.random() < 0.6 else (),
    )
    if branches == 2 and draw.random() < 0.5:
        maps = maps.replace(others={"uncond": texts(draw, images, words, counted)})
    return maps


def made_or_refused(make):
    """What was made; None if one line says why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return make()
    except AttnControlError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise
        return None


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(seed=st.integers(0, 2**32))
@budget(2)
def test_everything_is_made_of_any_record(tmp_path_factory, seed):
    maps, folder = record_of(seed), tmp_path_factory.mktemp("made")
    finite = all(of_layer.isfinite().all() for of_layer in maps.layers.values())
    drawable = maps.drawable
    shown = made_or_refused(lambda: page(maps))
    assert (shown is None) <= (not finite or maps.direction != "image->text")
    if shown:
        assert "alert(1)</script>" not in shown
        assert "step 1 <b>" not in shown
        assert not maps.partial or "This record is partial" in shown
    file = made_or_refused(lambda: save(maps, folder / "run.safetensors"))
    if file:
        back = load(file)
        for name, of_layer in maps.layers.items():
            assert torch.equal(back.layers[name].nan_to_num(), of_layer.nan_to_num())
    npz = made_or_refused(lambda: to_npz(maps, folder / "run.npz"))
    with np.load(npz) as arrays:
        assert {*maps.layers} <= {*arrays}
    tree = to_xarray(maps)
    assert tree.attrs.get("partial") == maps.partial
    assert to_csv(maps, folder / "run.csv").stat().st_size
    assert len(to_dataframe(maps)) >= len(maps.layers)
    if len(maps.labels[0]) > 3:  # many pictures
        return
    files = made_or_refused(lambda: write_pictures(maps, folder / "pictures"))
    assert (files is None) == (not drawable)
    for each in files or ():
        with Image.open(each) as picture:
            picture.load()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A record and one file or folder of each kind that is made of it."""
    folder, maps = tmp_path_factory.mktemp("exported"), record_of(4)
    maps = maps.replace(layers={n: of.nan_to_num() for n, of in maps.layers.items()})
    writers = {"npz": to_npz, "csv": to_csv, "zarr": to_zarr, "safetensors": save}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr
        for ending, write in writers.items():
            write(maps, folder / f"run.{ending}")
    return maps, folder, writers


def odd_zip(path, draw):
    with ZipFile(path, "w") as archive:
        for name in draw.sample(["a.npy", "attncontrol.npy.txt", "word/document.xml", "../x"], 2):
            archive.writestr(name, b"x")


def contents(path):
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {file: file.read_bytes() for file in files if file.is_file()}


def occupied(path, exported, draw):
    """Puts what may be there already at a place, ours or not; whether it surely is not ours."""
    source = exported / f"run.{draw.choice(['npz', 'csv', 'zarr', 'safetensors'])}"
    kind = draw.randrange(6)
    if kind == 0:
        odd_zip(path, draw)
    elif kind == 1:
        path.write_bytes(draw.randbytes(draw.randrange(200)))
    elif kind == 2:
        path.mkdir()
        (path / draw.choice(["x", "zarr.json", "c"])).write_text(
            draw.choice(["", "{}", "[]", '{"attributes": 1}', "null", '{"attributes": {"a": 1}}'])
        )
    elif source.is_dir():
        shutil.copytree(source, path)
        file = draw.choice([file for file in sorted(path.rglob("*")) if file.is_file()])
        if kind == 3:
            (file.parent / "notes.txt").write_text("x")
        else:
            file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size + 1)])
            return path.suffix != source.suffix
        return True
    else:
        data = bytearray(source.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
        return path.suffix != source.suffix
    return True


@pytest.mark.filterwarnings("ignore::UserWarning:zarr", "ignore::FutureWarning")
@given(seed=st.integers(0, 2**32), ending=st.sampled_from(["npz", "csv", "zarr", "safetensors"]))
@example(seed=290, ending="zarr")  # a file of others among the chunks of an array
@budget(40)
def test_nothing_of_others_is_written_over(exported, tmp_path_factory, seed, ending):
    maps, folder, writers = exported
    place = tmp_path_factory.mktemp("place")
    path = place / f"run.{ending}"
    foreign = occupied(path, folder, random.Random(seed))
    before = contents(path)
    try:
        writers[ending](maps, path)
    except WriteError:
        assert contents(path) == before
    else:
        assert not foreign
        assert {f.relative_to(path) for f in contents(path)} == {
            f.relative_to(folder / path.name) for f in contents(folder / path.name)
        }
    assert [each.name for each in place.iterdir()] == [path.name]
    shutil.rmtree(place)


ARGUMENTS = st.sampled_from([
    None, True, 0, -1, 7, 1.5, float("nan"), "", " ", "x", "x\0", "x/\n", b"x", "a" * 5000, "/",
    ".", "/dev/null", "/dev/null/x", [], ["a"], ("a", "b"), {}, object(), np.zeros(2), Path("x"),
    {1, 2}, "float32", "int8", "cond", "cat", Image.new("RGB", (2, 2)), AttentionMaps(),
])  # fmt: skip
DOORS = {
    "save": (save, {"file": "run.safetensors", "encoding": "float32"}),
    "to_npz": (to_npz, {"file": "run.npz"}),
    "to_csv": (to_csv, {"file": "run.csv"}),
    "to_xarray": (to_xarray, {}),
    "to_dataframe": (to_dataframe, {}),
    "write_pictures": (write_pictures, {"folder": "pictures"}),
    "page": (page, {"other": None, "titles": ("first", "second")}),
}


@pytest.mark.parametrize("name", sorted(DOORS))
@given(data=st.data())
@budget(15)
def test_odd_arguments(name, small, tmp_path_factory, monkeypatch, data):
    call, valid = DOORS[name]
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    arguments = {"maps": small} | valid
    for odd in data.draw(st.sets(st.sampled_from(sorted(arguments)), min_size=1)):
        arguments[odd] = data.draw(ARGUMENTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made_or_refused(lambda: call(**arguments))


@pytest.fixture(scope="module")
def small():
    maps = made({"a": torch.rand(1, 1, 2, 1, 2, 2, 1)}, words=("cat",))
    return maps.replace(pictures=[Image.new("RGB", (4, 4))])
