"""Records in other libraries hold the same numbers under the same names."""

import json

import numpy as np
import pandas
import pytest
import torch
import xarray
from PIL import Image
from typer.testing import CliRunner

from attncontrol import AttentionMaps, load, record
from attncontrol.attention.sites import Site
from attncontrol.bench.measure import examples
from attncontrol.cli import app
from attncontrol.prompts.tokens import Span
from tests.kit.sd import LAYER, run


@pytest.fixture
def maps(pipe):
    with record(pipe, ["cat", "turtle"], keep=("step",), branches=("cond", "uncond")) as found:
        run(pipe)
    return found


def test_npz(maps, tmp_path):
    with np.load(maps.to_npz(tmp_path / "run.npz")) as arrays:
        assert set(arrays) == {*maps.layers, "attncontrol"}
        np.testing.assert_array_equal(arrays[LAYER], maps.layers[LAYER].numpy())
        assert json.loads(str(arrays["attncontrol"]))["branches"] == ["cond", "uncond"]


@pytest.mark.filterwarnings("ignore::UserWarning:zarr", "ignore::FutureWarning")
def test_xarray_and_zarr(maps, tmp_path):
    pytest.importorskip("zarr")  # needs Python 3.11
    dataset = maps.to_xarray()
    at = dataset[LAYER].sel(branch="uncond", step=1).isel(image=0, token=1)
    assert at.dims == ("head_1", "height_4", "width_6")
    np.testing.assert_array_equal(at.values[0], maps.layers[LAYER][0, 1, 1, 0, ..., 1].numpy())
    assert dataset["word"].values.tolist() == [["cat", "turtle"]]
    assert dataset["timestep"].values.tolist() == list(maps.timesteps)
    assert dataset[LAYER].attrs["kind"] == "cross"
    with xarray.open_zarr(str(maps.to_zarr(tmp_path / "run.zarr")), consolidated=False) as back:
        np.testing.assert_array_equal(back[LAYER].values, dataset[LAYER].values)


def test_statistics_by_hand():
    cells = torch.zeros(1, 1, 1, 1, 2, 4, 2)
    cells[..., 1, 3, 0] = 0.5  # one cell, bottom right
    cells[..., 1] = 0.25  # everywhere
    maps = AttentionMaps(
        layers={"a": cells}, sites={"a": Site("a", "cross", 4, 1)}, prompts=("p",), tokens=((),),
        spans=((Span("cat", (1,)), Span("sky", (2,))),), branches=("cond",), steps=(0, 1),
    )  # fmt: skip
    cat, sky = maps.to_dataframe().to_dict("records")
    assert (cat["word"], cat["step"], cat["head"], cat["max"], cat["mean"]) == (
        "cat",
        -1,
        -1,
        0.5,
        0.0625,
    )
    assert (cat["peak_x"], cat["peak_y"], cat["centroid_x"], cat["centroid_y"]) == (
        0.875,
        0.75,
        0.875,
        0.75,
    )
    assert cat["entropy"] == 0
    assert (sky["centroid_x"], sky["centroid_y"]) == (0.5, 0.5)
    assert sky["entropy"] == pytest.approx(1)


def test_from_the_command_line(tmp_path):
    file = tmp_path / "run.safetensors"

    def invoke(*args):
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        return result.exit_code, result.stdout, result.stderr

    options = ("--steps", 3, "--uncond", "--json")
    code, out, error = invoke("record", "a red cat and a frog", "--out", file, *options)
    assert code == 0, error
    assert json.loads(out) == {
        "record": str(file), "bytes": file.stat().st_size, "words": ["cat", "red", "frog"], "steps": 3,
    }  # fmt: skip
    streamed = invoke(
        "record", "a red cat and a frog", "--out", tmp_path / "run", "--encoding", "sqrt8", *options
    )
    assert json.loads(streamed[1])["bytes"] < 0.9 * file.stat().st_size
    one, other = load(file), load(tmp_path / "run")
    assert one.branches == ("cond", "uncond")
    assert one.about["seeds"] == [0]
    torch.testing.assert_close(one["cat"], other["cat"], rtol=0, atol=2e-3)
    assert invoke("export", file, "--format", "png")[0] == 0
    assert {f"heads.{word}.png" for word in ("cat", "red", "frog")} < {
        f.name for f in (tmp_path / "run.pictures").iterdir()
    }
    assert invoke("export", file, "--format", "csv")[0] == 0
    table = pandas.read_csv(tmp_path / "run.csv")
    assert set(table["word"]) == {"cat", "red", "frog"}
    assert len(table) == sum(
        of.shape[1] * of.shape[2] * of.shape[3] * 3 for of in one.layers.values()
    )
    assert "choose from npz, zarr, csv, png" in " ".join(
        invoke("export", file, "--format", "pt")[2].split()
    )
    assert "choose from step, head" in " ".join(
        invoke("record", "a cat", "--keep", "layer")[2].split()
    )
    assert "choose from float32" in " ".join(
        invoke("record", "a cat", "--encoding", "int4")[2].split()
    )


def test_maps_of_a_real_picture(tmp_path):
    """The peak of a noun's map lies in that object."""
    scene = examples(1)[0]
    Image.fromarray(scene.picture).save(tmp_path / "scene.png")
    options = (
        "--prompt",
        scene.prompt,
        "--words",
        ",".join(scene.masks),
        "--out",
        str(tmp_path / "maps.safetensors"),
    )
    result = CliRunner().invoke(app, ["maps", str(tmp_path / "scene.png"), *options, "--json"])
    assert result.exit_code == 0, result.stderr
    maps = load(tmp_path / "maps.safetensors")
    assert maps.timesteps == (300.0,)
    assert maps.pictures[0].size == (128, 128)
    for word, mask in scene.masks.items():
        row, column = np.unravel_index(int(maps[word][0].argmax()), tuple(maps[word][0].shape))
        assert mask[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].any()
