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
from attncontrol.bench.examples import examples
from attncontrol.cli import app
from attncontrol.export import to_dataframe, to_npz, to_xarray, to_zarr
from attncontrol.prompts.tokens import Span
from tests.kit.sd import LAYER, run


@pytest.fixture
def maps(pipe):
    with record(pipe, ["cat", "turtle"], keep=("step",), branches=("cond", "uncond")) as found:
        run(pipe, negative_prompt="a turtle and a cat")
    return found


def test_npz(maps, tmp_path):
    with np.load(to_npz(maps, tmp_path / "run.npz")) as arrays:
        assert set(arrays) == {*maps.layers, "attncontrol"}
        np.testing.assert_array_equal(arrays[LAYER], maps.layers[LAYER].numpy())
        assert json.loads(str(arrays["attncontrol"]))["branches"] == ["cond", "uncond"]


def test_every_site_has_the_same_axes(maps):
    tree = to_xarray(maps)
    assert set(tree.children) == set(maps.layers)
    for name, node in tree.children.items():
        assert list(node) == ["attention"]
        array = node["attention"]
        assert array.dims == ("image", "branch", "step", "head", "height", "width", "token")
        np.testing.assert_array_equal(array.values, maps.layers[name].numpy())
    node = tree[LAYER]
    assert node["attention"].shape == (1, 2, 3, 1, 4, 6, 2)
    assert node["height"].values.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert node["width"].values == pytest.approx([1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12])
    assert node["branch"].values.tolist() == ["cond", "uncond"]
    assert node["step"].values.tolist() == [0, 1, 2]
    assert node["timestep"].values.tolist() == list(maps.timesteps)
    assert node["sigma"].values.tolist() == list(maps.sigmas)
    assert node["head"].values.tolist() == [-1]  # their mean
    assert node["token"].values.tolist() == ["cat", "turtle"]
    assert node["prompt"].values.tolist() == list(maps.prompts)
    assert node.attrs == {"kind": "cross", "stride": 2, "heads": 4}
    assert (tree.attrs["direction"], json.loads(tree.attrs["about"])) == (
        "image->text",
        dict(maps.about),
    )
    at = node["attention"].sel(image=0, branch="uncond", step=1, head=-1, token="turtle")
    np.testing.assert_array_equal(at.values, maps.layers[LAYER][0, 1, 1, 0, ..., 1].numpy())
    left = node["attention"].sel(width=slice(0, 0.5), token="cat").mean("width")
    np.testing.assert_allclose(left.values, maps.layers[LAYER][..., :3, 0].mean(-1).numpy())


def test_images_with_other_words_have_numbered_tokens():
    cells = torch.rand(2, 1, 1, 2, 2, 3, 3)
    spans = (
        (Span("cat", (1,)), Span("a", (2,)), Span("a", (3,))),
        (Span("dog", (1,)), Span("a", (2,))),
    )
    maps = AttentionMaps(
        layers={"a.b": cells}, sites={"a.b": Site("a.b", "cross", 2, 1)}, prompts=("p", "q"),
        tokens=((), ()), spans=spans, branches=("cond",), steps=(0, 1),
        timesteps=(9.0, 1.0), sigmas=(None, 0.5),
    )  # fmt: skip
    node = to_xarray(maps)["a.b"]
    assert node["token"].values.tolist() == [0, 1, 2]
    assert node["label"].dims == ("image", "token")
    assert node["label"].values.tolist() == [["cat", "a", "a#2"], ["dog", "a", ""]]
    assert node["step"].values.tolist() == [-1]  # the mean over both
    assert np.isnan([node["timestep"].values[0], node["sigma"].values[0]]).all()
    assert node["head"].values.tolist() == [0, 1]
    frames = maps.replace(layers={"a.b": torch.stack([cells, 2 * cells], 4)}, spans=(spans[0],) * 2)
    video = to_xarray(frames)["a.b"]
    assert video["attention"].dims == (
        "image", "branch", "step", "head", "frame", "height", "width", "token",
    )  # fmt: skip
    assert video["token"].values.tolist() == ["cat", "a", "a#2"]
    assert video["frame"].values.tolist() == [0, 1]


def test_attention_among_cells_has_numbered_tokens():
    maps = AttentionMaps(
        layers={"a": torch.rand(1, 1, 1, 1, 2, 2, 4), "b": torch.rand(1, 1, 1, 1, 1, 2, 2)},
        sites={n: Site(n, "self", 1, 1) for n in "ab"}, prompts=("p",), tokens=((),), spans=((),),
        branches=("cond",), steps=(0,), timesteps=(1.0,), sigmas=(0.5,),
        direction="image->image",
    )  # fmt: skip
    tree = to_xarray(maps)
    assert [tree[n]["token"].values.tolist() for n in "ab"] == [[0, 1, 2, 3], [0, 1]]


def test_zarr_holds_the_same_tree(maps, tmp_path):
    pytest.importorskip("zarr")  # needs Python 3.11
    tree = to_xarray(maps)
    folder = str(to_zarr(maps, tmp_path / "run.zarr"))
    with xarray.open_datatree(folder, engine="zarr", consolidated=False) as back:
        assert set(back.children) == set(maps.layers)
        for name in maps.layers:
            xarray.testing.assert_identical(back[name].to_dataset(), tree[name].to_dataset())
        assert back.attrs == tree.attrs


def test_statistics_by_hand():
    cells = torch.zeros(1, 1, 1, 1, 2, 4, 2)
    cells[..., 1, 3, 0] = 0.5  # one cell, bottom right
    cells[..., 1] = 0.25  # everywhere
    maps = AttentionMaps(
        layers={"a": cells}, sites={"a": Site("a", "cross", 4, 1)}, prompts=("p",), tokens=((),),
        spans=((Span("cat", (1,)), Span("sky", (2,))),), branches=("cond",), steps=(0, 1),
    )  # fmt: skip
    cat, sky = to_dataframe(maps).to_dict("records")
    assert (cat["token"], cat["step"], cat["head"], cat["max"], cat["mean"]) == (
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


def test_statistics_of_a_site_that_did_not_run_are_nan():
    cells = torch.full((1, 1, 2, 1, 2, 4, 1), 0.25)
    cells[:, :, 1] = torch.nan
    maps = AttentionMaps(
        layers={"a": cells}, sites={"a": Site("a", "cross", 1, 1)}, prompts=("p",), tokens=((),),
        spans=((Span("cat", (1,)),),), branches=("cond",), steps=(3, 7),
    )  # fmt: skip
    ran, absent = to_dataframe(maps).to_dict("records")
    assert (ran["step"], ran["mean"], ran["site"], ran["head"]) == (3, 0.25, "a", 0)
    assert absent["step"] == 7
    assert all(
        np.isnan(absent[name])
        for name in ("mean", "max", "peak_x", "peak_y", "centroid_x", "centroid_y", "entropy")
    )
    assert maps["cat"].tolist() == torch.full((1, 2, 4), 0.25).tolist()


def test_from_the_command_line(tmp_path):
    file = tmp_path / "run.safetensors"

    def invoke(*args):
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        return result.exit_code, result.stdout, result.stderr

    options = ("--steps", 3, "--uncond", "--json")
    code, out, error = invoke("record", "a red cat and a frog", "--out", file, *options)
    assert code == 0, error
    assert json.loads(out) == {
        "record": str(file), "bytes": file.stat().st_size,
        "words": ["cat", "red", "frog"], "steps": 3,
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
    assert invoke("export", file, "--out", tmp_path / "q.csv")[0] == 0  # the ending says it
    table = pandas.read_csv(tmp_path / "q.csv")
    assert set(table["token"]) == {"cat", "red", "frog"}
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
