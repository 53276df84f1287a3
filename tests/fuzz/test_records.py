"""Files of records with one change each: the same record, or RecordError."""

import json
import random
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attncontrol import load, save
from attncontrol.errors import RecordError
from attncontrol.maps.streaming import Stream
from tests.fuzz import budget
from tests.kit.records import made

ODD = (None, True, -1, 0, 3, 10**30, 0.5, "", "x", [], [1], {}, {"a": 1}, "step", float("nan"))


@pytest.fixture(scope="module", params=["float16", "sqrt8"])
def file(request, tmp_path_factory):
    cells = torch.rand(1, 1, 2, 2, 3, 4, 3, generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("record")
    return save(made({"a": cells}), folder / "run.safetensors", encoding=request.param)


def places(value, at=()):
    """The path of every value in a header."""
    yield at
    inside = dict(enumerate(value)) if isinstance(value, list) else value
    for key, each in inside.items() if isinstance(inside, dict) else ():
        yield from places(each, (*at, key))


def changed(header, draw):
    """One value becomes another, or goes."""
    *above, last = draw.choice([at for at in places(header) if at])
    inside = header
    for key in above:
        inside = inside[key]
    if draw.random() < 0.3:
        del inside[last]
    else:
        inside[last] = draw.choice(ODD)
    return header


def values(path):
    maps = load(path)
    read = {name: maps.layers[name] for name in maps.layers}
    return {name: getattr(maps, name) for name in ("prompts", "tokens", "spans", "steps")}, read


def refused(error):
    """By RecordError; the type checks of the tests read a layer and wrap what it raises."""
    while type(error).__name__ == "TypeCheckError" and error.__cause__:
        error = error.__cause__
    while not isinstance(error, RecordError) and error.__context__:
        error = error.__context__
    return isinstance(error, RecordError) and "\n" not in str(error)


def unless_refused(read, path):
    """What is read, or None where it is refused."""
    try:
        return read(path)
    except Exception as error:
        if not refused(error):
            raise
        return None


def same(found, expected):
    return found[0] == expected[0] and all(
        torch.equal(found[1][name], of) for name, of in expected[1].items()
    )


@given(seed=st.integers(0, 2**32))
@budget(40)
def test_bytes_that_flip_or_are_cut(file, seed):
    draw, data = random.Random(seed), bytearray(file.read_bytes())
    at = draw.randrange(len(data))
    if draw.random() < 0.3:
        del data[at:]
    else:
        data[at] ^= 1 << draw.randrange(8)
    other = file.with_name("flipped.safetensors")
    other.write_bytes(data)
    found = unless_refused(values, other)
    assert found is None or same(found, values(file))


@given(seed=st.integers(0, 2**32))
@budget(40)
def test_headers_of_other_programs(file, seed):
    """Without a checksum of the header: what is read is what the header says."""
    draw = random.Random(seed)
    with safe_open(file, "pt") as tensors:
        said = changed(json.loads(tensors.metadata()["attncontrol"]), draw)
    other = file.with_name("changed.safetensors")
    save_file(load_file(file), other, {"attncontrol": json.dumps(said)})
    if found := unless_refused(values, other):
        assert found[0]["prompts"] == tuple(image["prompt"] for image in said["images"])
        assert torch.equal(found[1]["a"], values(file)[1]["a"])


def rewritten(data, draw):
    """The bytes of a file with one change in the header of safetensors itself."""
    length = int.from_bytes(data[:8], "little")
    said = changed(json.loads(data[8 : 8 + length]), draw)
    text = json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@given(seed=st.integers(0, 2**32))
@budget(40)
def test_headers_of_safetensors(file, seed):
    """Other types, shapes, places and names of tensors are claimed."""
    other = file.with_name("claimed.safetensors")
    other.write_bytes(rewritten(file.read_bytes(), random.Random(seed)))
    found = unless_refused(values, other)
    assert found is None or same(found, values(file))


TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8,
    torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn,
)  # fmt: skip


def other_tensors(tensors, draw):
    """One change of what a file holds; axes of 1, and of many, are claimed too."""
    name = draw.choice(sorted(tensors))
    tensor, axis = tensors[name], draw.randrange(tensors[name].ndim)
    kind = draw.randrange(9)
    if kind == 0:
        return tensors | {name: tensor.to(draw.choice(TYPES))}
    if kind == 1:
        return {key: of for key, of in tensors.items() if key != name}
    if kind == 2:
        return tensors | {draw.choice(["maps/z", "scale/a", "pictures", "x", ""]): tensor.clone()}
    if kind == 3:
        return tensors | {name: tensor.narrow(axis, 0, draw.randrange(tensor.shape[axis] + 1))}
    if kind == 4:
        return tensors | {name: torch.cat([tensor] * draw.choice([2, 3, 1000]), axis)}
    if kind == 5:
        return tensors | {name: tensor.transpose(axis, draw.randrange(tensor.ndim))}
    if kind == 6:
        return tensors | {name: draw.choice([tensor.flatten(), tensor[None], tensor.sum()])}
    if kind == 7:
        one, two = draw.sample(sorted(tensors), 2)
        return tensors | {one: tensors[two].clone(), two: tensors[one].clone()}
    return tensors | {name: torch.zeros_like(tensor)}


@pytest.fixture(scope="module", params=["float32", "sqrt8"])
def two_layers(request, tmp_path_factory):
    generator = torch.Generator().manual_seed(1)
    layers = {name: torch.rand(1, 1, 2, 2, 3, 4, 3, generator=generator) for name in ("a", "b")}
    folder = tmp_path_factory.mktemp("record")
    return save(made(layers), folder / "run.safetensors", encoding=request.param)


@given(seed=st.integers(0, 2**32), summed=st.booleans())
@budget(40)
def test_other_tensors(two_layers, seed, summed):
    """Refused by the checksums where there are any, else read as they are stored."""
    with safe_open(two_layers, "pt") as tensors:
        said = json.loads(tensors.metadata()["attncontrol"])
    said |= {} if summed else {"checksums": {}}
    before = load_file(two_layers)
    held = other_tensors(before, random.Random(seed))
    held = {name: tensor.contiguous() for name, tensor in held.items()}
    other = two_layers.with_name("tensors.safetensors")
    save_file(held, other, {"attncontrol": json.dumps(said)})
    if (found := unless_refused(values, other)) is None:
        return
    _, layers = found
    assert held.keys() == before.keys()
    assert not summed or all(torch.equal(held[name], before[name]) for name in before)
    for name, maps in layers.items():
        stored = held[f"maps/{name}"].float()
        if said["encoding"] == "sqrt8":
            stored = (stored / 255) ** 2 * held[f"scale/{name}"]
        assert torch.equal(maps, stored)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of the same prompt, their maps by name of the run."""
    place = tmp_path_factory.mktemp("runs")
    generator = torch.Generator().manual_seed(2)
    found = {}
    for name in ("one", "two"):
        maps = made({"a": torch.rand(1, 1, 4, 1, 2, 2, 3, generator=generator)})
        steps = Stream(place / name, "float32")
        for step in range(4):
            along = {each: getattr(maps, each)[step : step + 1] for each in ("timesteps", "sigmas")}
            layers = {"a": maps.layers["a"][:, :, step : step + 1]}
            one = maps.replace(layers=layers, steps=(step,), **along).recording
            steps.write(one, last=step == 3)
        found[steps.run] = maps.layers["a"]
    return place, found


def disturbed(folder, other, draw):
    """One change of a folder of steps."""
    files = sorted(folder.glob("step-*"))
    file = draw.choice(files)
    kind = draw.randrange(8)
    if kind == 0:
        file.unlink()
    elif kind == 1:
        file.rename(folder / f"step-{draw.randrange(6):04}.safetensors")
    elif kind == 2:
        data = file.read_bytes()
        (folder / f"step-{draw.randrange(6):04}.safetensors").write_bytes(data)
    elif kind == 3:
        shutil.copy(draw.choice(sorted(other.iterdir())), folder)
    elif kind == 4:
        file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size + 1)])
    elif kind == 5:
        one, two = draw.choice(files), draw.choice(files)
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second), two.write_bytes(first)
    elif kind == 6:
        (folder / draw.choice(["x", ".lock", "step-1.safetensors", "pictures.safetensors"])).touch()
    else:
        file.unlink()
        file.mkdir()


@given(seed=st.integers(0, 2**32), changes=st.integers(1, 3))
@budget(60)
def test_folders_of_steps(runs, tmp_path_factory, seed, changes):
    """The first steps of one run, called partial unless they are all; or RecordError."""
    (place, whole), draw = runs, random.Random(seed)
    folder = tmp_path_factory.mktemp("folder") / "run"
    shutil.copytree(place / "one", folder)
    for _ in range(changes):
        if any(folder.glob("step-*")) and all(map(Path.is_file, folder.glob("step-*"))):
            disturbed(folder, place / "two", draw)

    def read(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            maps = load(path)
            return maps, maps.layers["a"]

    try:
        if loaded := unless_refused(read, folder):
            maps, found = loaded
            with safe_open(maps.files[0], "pt") as tensors:
                run = json.loads(tensors.metadata()["attncontrol"])["run"]
            assert torch.equal(found, whole[run][:, :, : len(maps.steps)])
            assert (maps.partial is None) == (len(maps.steps) == 4)
    finally:
        shutil.rmtree(folder.parent)
