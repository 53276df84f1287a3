"""Files of records with one change each: the same record, or RecordError."""

import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attncontrol import load, save
from attncontrol.errors import RecordError
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
    try:
        found = values(other)
    except Exception as error:
        if not refused(error):
            raise
    else:
        assert same(found, values(file))


@given(seed=st.integers(0, 2**32))
@budget(40)
def test_headers_of_other_programs(file, seed):
    """Without a checksum of the header: what is read is what the header says."""
    draw = random.Random(seed)
    with safe_open(file, "pt") as tensors:
        said = changed(json.loads(tensors.metadata()["attncontrol"]), draw)
    other = file.with_name("changed.safetensors")
    save_file(load_file(file), other, {"attncontrol": json.dumps(said)})
    try:
        found = values(other)
    except Exception as error:
        if not refused(error):
            raise
    else:
        assert found[0]["prompts"] == tuple(image["prompt"] for image in said["images"])
        assert torch.equal(found[1]["a"], values(file)[1]["a"])
