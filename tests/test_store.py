"""Records on disk: the same maps come back, read with safetensors and json alone, streamed step by
step."""

import gc
import json
import math
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from attncontrol import AttentionMaps, load, record, save
from attncontrol.cli.app import app
from attncontrol.errors import (
    AttnControlError,
    CouplingError,
    NonFiniteError,
    RecordError,
    SettingError,
    SizeError,
    WordError,
    WriteError,
)
from attncontrol.maps.functional import resize
from attncontrol.maps.store import require_encoding
from attncontrol.maps.streaming import Stream
from tests.kit.records import made
from tests.kit.sd import LAYER, PROMPT, run


def one_step(maps, step, layers):
    along = {name: getattr(maps, name)[step : step + 1] for name in ("timesteps", "sigmas")}
    return maps.replace(layers=layers, steps=(step,), **along).recording


@pytest.fixture
def maps(pipe):
    with record(
        pipe, ["cat", "turtle"], keep=("step", "head"), branches=("cond", "uncond")
    ) as found:
        run(pipe, images=2, negative_prompt="a turtle and a cat")
    found.pictures = [Image.fromarray(np.full((64, 96, 3), value, np.uint8)) for value in (10, 200)]
    return found


def test_what_is_saved_comes_back(maps, tmp_path):
    back = load(save(maps, tmp_path / "run.safetensors"))
    assert list(back.layers) == list(maps.layers)
    for name, of_layer in maps.layers.items():
        assert torch.equal(back.layers[name], of_layer)
    for name in (
        "sites",
        "prompts",
        "tokens",
        "spans",
        "branches",
        "steps",
        "timesteps",
        "sigmas",
        "direction",
        "reductions",
        "others",
    ):
        assert getattr(back, name) == getattr(maps, name), name
    assert back.about == maps.about
    assert [np.asarray(p).mean() for p in back.pictures] == [10, 200]
    assert torch.equal(back["cat"], maps["cat"])


def test_what_ran_is_written_down(maps):
    assert maps.steps == (0, 1, 2)
    assert maps.about["seeds"] == [0]
    assert maps.about["scheduler"] == "DDIMScheduler"
    assert maps.about["guidance_scale"] == 7.5
    assert maps.about["not_run"] == []
    assert maps.reductions == ("sum over the tokens of a word",)
    assert [span.positions for span in maps.spans[0]] == [(2,), (5, 6)]
    assert maps.sigmas[0] > maps.sigmas[1] > maps.sigmas[2] > 0
    assert maps.sites[LAYER].stride == 2


def test_the_format_is_plain(maps, tmp_path):
    """As the README says: safetensors and json are enough."""
    file = save(maps, tmp_path / "run.safetensors")
    with safe_open(file, "np") as tensors:
        header = json.loads(tensors.metadata()["attncontrol"])
        of_layer = tensors.get_tensor(f"maps/{LAYER}")
    at = dict(zip(header["dims"], of_layer.shape, strict=True))
    assert at == {
        "image": 2,
        "branch": 2,
        "step": 3,
        "head": 4,
        "height": 4,
        "width": 6,
        "token": 2,
    }
    assert header["branches"] == ["cond", "uncond"]
    assert [word["text"] for word in header["images"][0]["words"]] == ["cat", "turtle"]
    token = header["images"][0]["tokens"][5]
    assert (token["text"], PROMPT[token["start"] : token["end"]], token["special"]) == (
        "tur",
        "tur",
        False,
    )
    np.testing.assert_array_equal(of_layer, maps.layers[LAYER].numpy())


@pytest.mark.parametrize(
    ("encoding", "size", "error"),
    [("float16", 0.5, 5e-4), ("bfloat16", 0.5, 4e-3), ("sqrt8", 0.3, 4e-3)],
)
def test_encodings_are_small_and_close(maps, tmp_path, encoding, size, error):
    full, small = (
        save(maps, tmp_path / f"{e}.safetensors", encoding=e) for e in ("float32", encoding)
    )
    count = sum(t.nbytes for name, t in load_file(small).items() if name != "pictures")
    assert count <= size * sum(
        t.nbytes for name, t in load_file(full).items() if name != "pictures"
    )
    for name, of_layer in load(small).layers.items():
        peak = of_layer.amax((-3, -2), keepdim=True)
        assert ((of_layer - maps.layers[name]).abs() / peak).max() < error


def test_quantised_zeros_stay_zero(maps, tmp_path):
    maps = maps.replace(layers={n: torch.zeros_like(of) for n, of in maps.layers.items()})
    back = load(save(maps, tmp_path / "zero.safetensors", encoding="sqrt8"))
    assert all(
        torch.equal(of_layer, torch.zeros_like(of_layer)) for of_layer in back.layers.values()
    )


@pytest.mark.parametrize("encoding", ["float32", "float16", "bfloat16", "sqrt8"])
def test_steps_that_did_not_run_come_back(maps, tmp_path, encoding):
    gone = {name: of_layer.clone() for name, of_layer in maps.layers.items()}
    gone[LAYER][:, 1, 2] = torch.nan
    back = load(save(maps.replace(layers=gone), tmp_path / "run.safetensors", encoding=encoding))
    read = back.layers[LAYER]
    assert torch.equal(read.isnan(), gone[LAYER].isnan())
    torch.testing.assert_close(read, gone[LAYER], rtol=0, atol=4e-3, equal_nan=True)
    torch.testing.assert_close(
        back.mean("uncond")[..., 0],
        torch.stack([resize(of[:, 1].nanmean((1, 2)), 8, 12)[..., 0] for of in gone.values()]).mean(
            0
        ),
        rtol=0,
        atol=4e-3,
    )


def test_a_map_that_is_nan_in_part_is_not_quantised(maps, tmp_path):
    broken = {LAYER: maps.layers[LAYER].clone()}
    broken[LAYER][0, 0, 0, 0, 1, 2, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=f"{LAYER} holds maps of which a part is NaN"):
        save(maps.replace(layers=broken), tmp_path / "run.safetensors", encoding="sqrt8")
    back = load(save(maps.replace(layers=broken), tmp_path / "run.safetensors"))
    assert back.layers[LAYER].isnan().sum() == 1


def test_the_header_is_json(maps, tmp_path):
    """JSON has no word for infinity and NaN."""
    odd = maps.replace(sigmas=(float("inf"), 2.0, float("nan")), about={"guidance": float("nan")})
    with safe_open(save(odd, tmp_path / "run.safetensors"), "np") as tensors:
        text = tensors.metadata()["attncontrol"]
    assert "NaN" not in text
    assert "Infinity" not in text
    assert load(tmp_path / "run.safetensors").sigmas == (None, 2.0, None)


def test_a_site_that_ran_in_some_steps_only(maps, tmp_path):
    """Each step has a file of its own; that of a step holds the sites that ran in it."""
    other = next(name for name in maps.layers if name != LAYER)
    stream = Stream(tmp_path, "sqrt8")
    for step in range(3):
        layers = {name: of[:, :, step : step + 1] for name, of in maps.layers.items()}
        ran = layers if step != 1 else {n: of for n, of in layers.items() if n != LAYER}
        stream.write(one_step(maps, step, ran), last=step == 2)
    back = load(tmp_path)
    assert back.shapes == maps.shapes
    assert back.layers[LAYER][:, :, 1].isnan().all()
    torch.testing.assert_close(
        back.layers[LAYER][:, :, [0, 2]], maps.layers[LAYER][:, :, [0, 2]], rtol=0, atol=4e-3
    )
    assert back.layers[other].isfinite().all()


def test_nothing_is_known_before_the_block_ends(pipe):
    pictures = [Image.new("RGB", (96, 64))]
    with record(pipe, ["cat"]) as maps:
        for name in ("layers", "sites", "prompts", "steps", "branches", "labels", "nbytes"):
            with pytest.raises(CouplingError, match="complete when the record"):
                getattr(maps, name)
        with pytest.raises(CouplingError, match="complete when the record"):
            maps["cat"]
        assert repr(maps) == "AttentionMaps(not complete before the record(...) block ends)"
        run(pipe)
        maps.pictures = pictures
    assert maps.pictures is pictures
    assert maps["cat"].shape == (1, 8, 12)
    assert type(maps["cat"]) is torch.Tensor
    for name in ("layers", "prompts", "about"):
        with pytest.raises(AttributeError):
            setattr(maps, name, ())
    assert repr(maps) == (
        "AttentionMaps(1 images, 3 steps, 10 sites on grids 8 x 12, 4 x 6 and 2 x 3, "
        "image->text: cat; 0.0 MB)"
    )


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_streamed_steps_equal_kept_steps(pipe, tmp_path, guidance):
    with record(pipe, ["cat"], keep=("step",)) as whole:
        plain = run(pipe, guidance_scale=guidance)
    with record(pipe, ["cat"], to=tmp_path / "run") as streamed:
        again = run(pipe, guidance_scale=guidance)
        streamed.pictures = [Image.new("RGB", (96, 64))]
    assert torch.equal(plain, again)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "step-0000.safetensors", "step-0001.safetensors", "step-0002.safetensors",
    ]  # fmt: skip
    back = load(tmp_path / "run")
    assert back.steps == whole.steps
    assert back.sigmas == whole.sigmas
    assert back.pictures[0].size == (96, 64)
    for name, of_layer in whole.layers.items():
        assert torch.equal(back.layers[name], of_layer)
        assert torch.equal(streamed.layers[name], of_layer)
    assert streamed.about == whole.about
    one = load(tmp_path / "run" / "step-0001.safetensors")
    assert (one.steps, one.partial) == ((1,), "step 1 of a run alone")
    assert torch.equal(one.layers[LAYER], whole.layers[LAYER][:, :, 1:2])


def test_a_killed_run_leaves_its_finished_steps(pipe, tmp_path):
    def kill(_pipe, step, _timestep, kwargs):
        if step == 1:
            raise KeyboardInterrupt
        return kwargs

    with pytest.raises(KeyboardInterrupt), record(pipe, ["cat"], to=tmp_path):
        run(pipe, callback_on_step_end=kill)
    with pytest.warns(UserWarning, match="is partial: the run was stopped after step 0"):
        back = load(tmp_path)
    assert back.steps == (0,)
    assert repr(back).endswith("; partial: the run was stopped after step 0)")
    again = load(save(back, tmp_path / "copy.safetensors"))
    assert again.partial == back.partial


def test_a_streamed_run_holds_one_step(pipe, tmp_path):
    """Floats alive that belong to the recording, by the size of its maps."""
    alive = []

    def look(_pipe, _step, _timestep, kwargs):
        gc.collect()
        alive.append(
            sum(
                type(o) is torch.Tensor and o.shape == (1, 1, 1, 1, 8, 12, 1)
                for o in gc.get_objects()
            )
        )
        return kwargs

    with record(pipe, ["cat"], to=tmp_path):
        run(pipe, steps=5, callback_on_step_end=look)
    assert len(set(alive)) == 1
    assert alive[0] > 0


@pytest.mark.usefixtures("as_users_have_it")
def test_a_path_that_is_too_long_is_one_short_line():
    maps = made({"a": torch.rand(1, 1, 1, 1, 2, 2, 1)}, ("cat",))
    for act in (lambda path: save(maps, path), load):
        with pytest.raises(AttnControlError, match=r"aa \.\.\. aa.*File name too long") as said:
            act("a" * 5000)
        assert len(str(said.value)) < 600


def test_bad_files_are_refused(maps, tmp_path):
    with pytest.raises(
        RecordError, match=r"holds no attention record: there is no step-\*.safetensors"
    ):
        load(tmp_path)
    with pytest.raises(RecordError, match="is not an attention record"):
        load(tmp_path / "missing.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RecordError, match=r"write one with attncontrol\.save"):
        load(tmp_path / "other.safetensors")
    save_file({}, tmp_path / "new.safetensors", {"attncontrol": '{"schema": 2}'})
    with pytest.raises(RecordError, match="schema 2, this version reads 1"):
        load(tmp_path / "new.safetensors")
    with pytest.raises(CouplingError, match="nothing is recorded yet"):
        save(AttentionMaps(), tmp_path / "empty.safetensors")
    with pytest.raises(CouplingError, match="none of the sites ran"):
        maps.replace(layers={})


@pytest.mark.usefixtures("as_users_have_it")
def test_a_record_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    """4 maps of one number become, by their header alone, maps of 40000 x 40000."""
    file = save(made({"a": torch.rand(1, 1, 1, 1, 2, 2, 1)}, ("cat",)), tmp_path / "a.safetensors")
    size, data = 4 * 40_000**2, file.read_bytes()
    said = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    said["maps/a"] |= {"shape": [1, 1, 1, 1, 40_000, 40_000, 1], "data_offsets": [0, size]}
    text = json.dumps(said).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    with file.open("r+b") as sparse:
        sparse.truncate(8 + len(text) + size)
    said = r"a\.safetensors holds 6\.0 GiB, more than limit=4\.0 GiB: raise limit=... "
    with pytest.raises(SizeError, match=said):
        load(file)
    assert load(file, limit=float(size)).nbytes == size
    assert load(file, limit=math.inf).shapes == {"a": (1, 1, 1, 1, 40_000, 40_000, 1)}
    with pytest.raises(SettingError, match="limit must be a number of bytes"):
        load(file, limit=-1.0)
    result = CliRunner().invoke(app, ["export", str(file), "--limit", "5.9"])
    assert (result.exit_code, "limit=5.9 GiB" in result.output) == (2, True)


def test_a_recording_that_is_too_large_is_refused_before_the_first_step(pipe):
    calls = []
    hook = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    with (
        pytest.raises(SizeError, match=r"hold 48\.0 KiB, more than limit=10 bytes; name words"),
        record(pipe, limit=10.0),
    ):
        run(pipe)
    hook.remove()
    assert not calls


@pytest.mark.parametrize("encoding", ["int8", "float64", None, "Float32"])
def test_unknown_encodings_are_refused(encoding):
    """By ``save`` and ``record``."""
    with pytest.raises(SettingError, match="choose from 'float32', 'float16'"):
        require_encoding(encoding)


def test_values_that_an_encoding_cannot_keep_are_refused(maps, tmp_path):
    large = maps.replace(layers={LAYER: maps.layers[LAYER] + 1e5})
    with pytest.raises(NonFiniteError, match="values too large for 'float16'"):
        save(large, tmp_path / "run.safetensors", encoding="float16")
    below = maps.replace(layers={LAYER: maps.layers[LAYER] - 1})
    with pytest.raises(NonFiniteError, match="negative; 'sqrt8' cannot keep them"):
        save(below, tmp_path / "run.safetensors", encoding="sqrt8")
    assert list(tmp_path.iterdir()) == []


def test_only_records_are_replaced_and_never_what_is_read(maps, tmp_path, caplog):
    file = save(maps, tmp_path / "run.safetensors")
    back = load(file)
    with pytest.raises(WriteError, match="over the input"):
        save(back, file, encoding="sqrt8")
    with pytest.raises(WriteError, match="over the input"):
        save(back, tmp_path)
    save(maps.replace(prompts=("b", "b")), file)
    assert f"{file} is replaced" in caplog.text
    assert load(file).prompts == ("b", "b")
    theirs = tmp_path / "weights.safetensors"
    save_file({"x": torch.zeros(1)}, theirs)
    with pytest.raises(WriteError, match="was not made by this command"):
        save(maps, theirs)
    assert list(load_file(theirs)) == ["x"]


def test_a_full_disk_leaves_the_record_that_was_there(maps, tmp_path):
    file = save(maps.replace(layers={LAYER: maps.layers[LAYER]}), tmp_path / "run.safetensors")
    before = file.read_bytes()
    with limited(10_000), pytest.raises(WriteError, match=r"run\.safetensors was not written"):
        save(maps.replace(pictures=()), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@contextmanager
def limited(size):
    """No file may become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_word_that_only_some_prompts_have(maps):
    first, second = maps.spans
    some = maps.replace(spans=(first, second[:1]))
    found = some["turtle"]
    assert torch.equal(found[0], maps["turtle"][0])
    assert found[1].isnan().all()
    with pytest.raises(WordError, match="'frog' was not recorded; recorded are: cat, turtle"):
        some["frog"]
