"""Inversions x editors on pictures that exist: rows, going on, tables, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from attncontrol.attention.edit import Edit
from attncontrol.batch.inversions import inversion, invertible
from attncontrol.batch.options import load_pipeline
from attncontrol.bench.edit_suite.possible import require_methods
from attncontrol.bench.photos import table
from attncontrol.bench.photos.compare import run
from attncontrol.bench.photos.making import coded, costs, edited, inverted
from attncontrol.bench.photos.measures import decibels
from attncontrol.bench.photos.methods import (
    changes,
    expanded,
    fits,
    require_editor,
    require_inversion,
)
from attncontrol.bench.photos.pairs import pairs
from attncontrol.bench.photos.rows import FolderRow, PhotoRow
from attncontrol.bench.rows import read
from attncontrol.bench.suites import INVERSIONS
from attncontrol.cli import app
from attncontrol.errors import ResultsError, SettingError
from attncontrol.export.chart import is_chart
from attncontrol.losses import Auto
from attncontrol.verbs.places import On
from tests.kit.zoo import EXTRA, ZOO

CALL = {"num_inference_steps": 2, "guidance_scale": 2.0}
"""Of the bundled UNet, for what holds with any number of steps."""


@pytest.fixture(scope="module")
def pipe():
    pipe = load_pipeline("sprites")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def two():
    return pairs("recolour", 2)


def drawn(pipe, two, out, inversions=("exact",), editors=("none",), **more):
    options = {"batch": 2, "progress": lambda chunks, _: chunks, **CALL, **more}
    return run(pipe, "photos-recolour", inversions, editors, two, out, **options)


@pytest.fixture(scope="module")
def made(pipe, two, tmp_path_factory):
    out = tmp_path_factory.mktemp("photos")
    cells = {"inversions": ["exact", "ddim"], "editors": ["none", "p2p@0.4", "sdedit@0.5"]}
    return out, cells, drawn(pipe, two, out, **cells)


def test_cells_are_inversions_times_editors(made, two):
    _, _, rows = made
    assert [(row.inversion, row.method) for row in rows[::2]] == [
        ("none", "sdedit@0.5"), ("exact", "none"), ("exact", "p2p@0.4"),
        ("ddim", "none"), ("ddim", "p2p@0.4"),
    ]  # fmt: skip
    assert [(row.suite, row.prompt, row.seed) for row in rows[:2]] == [
        ("recolour", str(pair), pair.number) for pair in two
    ]
    noised, exact, taken, ddim, _ = rows[::2]
    assert np.isnan(noised.rebuilt)
    # two branches of two images, and one of the inversion; sdedit makes one of two steps
    assert [row.evaluations for row in (noised, exact, taken, ddim)] == [2, 10, 10, 10]
    assert exact.psnr == ddim.psnr  # from the same noise
    assert exact.rebuilt == pytest.approx(exact.limit, abs=0.1)
    assert ddim.rebuilt < exact.rebuilt - 1
    assert taken.psnr_outside > exact.psnr_outside
    assert all(row.seconds > 0 for row in rows)


def test_rows_are_measures_of_the_pictures(pipe, two):
    sized = CALL | {"height": 128, "width": 128}
    trajectory, cost = inverted(pipe, "exact", two, sized)
    result = edited(pipe, trajectory, "none", two, sized)
    assert (cost.rows, result.cost.rows) == (2 * 2, 2 * 2 * 2 * 2)
    for pair, picture, again, limit in zip(
        two, result.pictures, result.rebuilt, coded(pipe, two), strict=True
    ):
        assert picture.size == again.size == (128, 128)
        assert decibels(again, limit) > 45
        assert decibels(limit, pair.picture) > 25
        assert decibels(picture, again) < 40


def test_a_run_goes_on_where_it_was(pipe, two, made, monkeypatch):
    out, cells, rows = made
    lines = (out / "photos.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows) == 11
    (out / "photos.csv").write_text("\n".join(lines[:-1]) + "\n")
    again = drawn(pipe, two, out, **cells)
    same = [replace(row, seconds=0.0) for row in rows[:-1]]
    assert repr([replace(row, seconds=0.0) for row in again[:-1]]) == repr(same)
    assert again[-1].psnr == pytest.approx(rows[-1].psnr, abs=0.01)
    monkeypatch.setattr(type(pipe), "__call__", None)  # nothing is made again
    assert repr(drawn(pipe, two, out, **cells)) == repr(again)
    assert repr(drawn(pipe, two[:1], out)) == repr(again[2:3])
    with pytest.raises(ResultsError, match=r"other settings.*guidance scale: 2.0 there, 3.0 here"):
        drawn(pipe, two, out, guidance_scale=3.0)


@pytest.mark.parametrize("name", ["sd3", "flux", "pixart"])
def test_families(name):
    pipe = ZOO[name]()
    pipe.set_progress_bar_config(disable=True)
    before = type(pipe.scheduler).__name__
    assert invertible(pipe) == (None if "Flow" in before else before)
    some = pairs("swap", 2)
    call = {"num_inference_steps": 2, "height": 128, "width": 128, **EXTRA[name]}
    trajectory, cost = inverted(pipe, "exact", some, call)
    result = edited(pipe, trajectory, "replace", some, call)
    assert cost.rows == 2 * 2
    for again, limit in zip(result.rebuilt, coded(pipe, some), strict=True):
        assert decibels(again, limit) > 45


def test_what_editors_do(two):
    assert changes("none", two, None) == changes("sdedit@0.3", two, None) == []
    steering, (blend, taking) = changes("p2p@0.4+auto", two, None)
    assert isinstance(steering, Auto)
    assert isinstance(blend, On)
    assert blend.edit.source == taking.edit.source == (0, 0, 2, 2)
    assert taking.edit.cross == 0.4
    plain = [replace(pair, case=None) for pair in two]
    (again,) = changes("p2p@0.4", plain, None)
    assert repr(again) == repr([blend, taking])
    (moved, other) = changes("move", pairs("move", 2), None)
    assert isinstance(moved, Edit)
    assert (moved.source, other.source) == ((0, 0, 2, 3), (0, 1, 2, 2))


def test_names_of_editors():
    assert expanded(["none", "replace@curve"], scenes=True) == [
        "none", "replace@0.2", "replace@0.4", "replace@0.6", "replace@0.8", "replace@1",
    ]  # fmt: skip
    assert expanded(["masactrl@curve", "none"], scenes=False)[:2] == ["masactrl@0", "masactrl@0.2"]
    assert fits("none", "move")
    assert fits("move", "move")
    assert not fits("move", "swap")
    for name, scenes, message in (
        ("p3p", True, "choose from"), ("move", False, "choose from"), ("sdedit", True, "strength"),
        ("same-seed", True, "is 'none'"), ("p2p+auto@curve", True, "auto has no strength"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=message):
            expanded([name], scenes=scenes)


def test_inversions_fit_their_models(pipe):
    flows = {"rf-solver", "fireflow", "flow-edit"}
    flux, sd3 = (ZOO[name]() for name in ("flux", "sd3"))
    for name in INVERSIONS:
        if name != "dynamic-prompt":
            require_inversion(name, sd3, CALL)
        if name not in flows:
            require_inversion(name, pipe, CALL)
    assert inversion("null-text", CALL).guidance_scale == 2.0
    for name, of, call, message in (
        ("inexact", pipe, CALL, "choose from exact"),
        ("rf-solver", pipe, CALL, "is for models of rectified flow, not for DDIMScheduler"),
        ("null-text", flux, CALL, "FluxPipeline does not in this run"),
        ("negative-prompt", pipe, {"guidance_scale": 1.0}, "leave it out"),
    ):
        with pytest.raises(SettingError, match=message):
            require_inversion(name, of, call)


@pytest.mark.parametrize("name", ["negative-prompt", "fireflow"])
def test_other_inversions_run(pipe, two, name):
    of = ZOO["sd3"]() if name == "fireflow" else pipe
    of.set_progress_bar_config(disable=True)
    call = CALL | {"height": 128, "width": 128} | (EXTRA["sd3"] if name == "fireflow" else {})
    trajectory, cost = inverted(of, name, two[:1], call)
    result = edited(of, trajectory, "none", two[:1], call)
    assert len(result.pictures) == len(result.rebuilt) == 1
    assert cost.rows >= 2
    assert result.cost.rows >= 8


def test_costs_are_counted_and_the_hook_goes(pipe):
    with costs(pipe) as cost, torch.no_grad():
        pipe("a cat", num_inference_steps=2, guidance_scale=2.0, output_type="latent")
    assert cost.rows == 4
    assert cost.seconds > 0
    with pytest.raises(ZeroDivisionError), costs(pipe):
        raise ZeroDivisionError
    assert not pipe.unet._forward_pre_hooks


def row(editor, number, psnr, shown, **more):
    known = {"ssim": 0.5, "mse": 0.01, "iou": 0.5, "limit": 30.0, "evaluations": 125.0}
    known |= {"suite": "swap", "prompt": "a -> b", "inversion": "exact", "seconds": 1.0}
    known |= {f"{name}_{place}": 0.5 for name in ("psnr", "ssim", "mse") for place in
              ("inside", "outside")}  # fmt: skip
    known |= {"kept": 1.0, "rebuilt": 29.0, "method": editor, "seed": number, "psnr": psnr}
    return PhotoRow(**known | {"shown": shown} | more)


def test_tables():
    rows = [row("p2p", n, 20.0 + n, float(n > 0)) for n in range(4)]
    rows += [row("sdedit@0.6", n, 18.0, 0.0, inversion="none", rebuilt=np.nan) for n in range(2)]
    first, second = table.summary(rows)
    assert (first["inversion"], first["editor"], first["n"]) == ("exact", "p2p", 4)
    assert (first["psnr"], first["both"], first["rebuilt"]) == (21.5, 0.75, 29.0)
    low, high = first["psnr_interval"]
    assert 20 < low < 21.5 < high < 23
    assert (second["rebuilt"], second["psnr_interval"]) == (None, [18.0, 18.0])
    head, _, *lines = table.markdown([first, second]).splitlines()
    assert head.startswith("| inversion | editor | n | both | shown | kept | PSNR |")
    assert lines[0].startswith("| exact | p2p | 4 | 75.0 (25.0 to 100.0) | 75.0 | 100.0 | 21.5 (")
    assert lines[1].endswith("|  | 30.0 | 125 | 1.00 |")


def folder_of(path, some):
    """PIE-Bench's layout."""
    (path / "annotation_images").mkdir(parents=True)
    entries = {}
    for number, pair in enumerate(some):
        pair.picture.save(path / "annotation_images" / f"{number}.png")
        entries[f"{number:012}"] = {
            "image_path": f"{number}.png", "original_prompt": pair.source_prompt,
            "editing_prompt": pair.prompt, "editing_type_id": str(6 * number), "blended_word": "",
            "mask": [512 * 256, 512 * 200],
        }  # fmt: skip
    (path / "mapping_file.json").write_text(json.dumps(entries))
    return path


def invoked(*options):
    result = CliRunner().invoke(app, ["bench", *map(str, options)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_command_on_a_folder(two, tmp_path, monkeypatch):
    monkeypatch.setattr("attncontrol.batch.pipelines.call_of", lambda _: CALL)
    folder, out = folder_of(tmp_path / "pie", two), tmp_path / "out"
    some = ["--inversions", "exact", "--editors", "none,masactrl", "--out", out, "--batch", 2]
    found = json.loads(invoked("--pairs", folder, *some, "--json"))
    assert list(found) == ["pairs-0-random", "pairs-6-change-color", "pairs"]
    assert [(line["editor"], line["n"]) for line in found["pairs"]] == [
        ("none", 2), ("masactrl", 2),
    ]  # fmt: skip
    rows = read(out / "pairs.csv", FolderRow)
    assert [each.seed for each in rows] == [0, 0, 1, 1]
    assert all(each.psnr_unedited > each.psnr_outside for each in rows)
    mean = np.mean([each.mse_outside for each in rows if each.method == "none"])
    assert found["pairs"][0]["mse_outside"] == pytest.approx(mean, abs=1e-6)
    text = invoked("--pairs", folder, *some, "--count", 2)
    assert text.count("| inversion | editor | n | PSNR unedited |") == 3
    assert {"pairs.md", "pairs.json", "pairs.png"} < {path.name for path in out.iterdir()}
    assert is_chart(out / "pairs.png")


def test_the_command_on_true_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr("attncontrol.batch.pipelines.call_of", lambda _: CALL)
    text = invoked("--suite", "photos", "--kind", "remove,move", "--count", 2, "--inversions",
                   "exact", "--editors", "remove,move", "--out", tmp_path)  # fmt: skip
    assert text.startswith("photos-remove\n\n| inversion | editor | n |")
    assert "| exact | move | 2 |" in text
    assert {(each.suite, each.method) for each in read(tmp_path / "photos.csv", PhotoRow)} == {
        ("remove", "remove"), ("move", "move"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("suite", "methods", "message"),
    [
        ("photos", "--editors", "'add-it' is not for StableDiffusionPipeline: no attention site"),
        ("edits", "--methods", "'add-it' is not for StableDiffusionPipeline: no attention site"),
    ],
)
def test_what_a_model_cannot_have_is_refused_before_any_table(suite, methods, message, tmp_path):
    """Of the last of three kinds."""
    given = "--suite", suite, "--kind", "recolour,swap,add", methods, "replace,add-it"
    result = CliRunner().invoke(app, ["bench", *given, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    told = " ".join(result.stderr.replace("\u2502", " ").split())
    assert message in told
    assert told.endswith("leave it out")
    assert not (tmp_path / "out").exists()


def test_what_else_models_cannot_have():
    pipe = load_pipeline("sprites-pixart")
    for name, why in (("pnp", "no attention site matches"), ("sdedit@0.6", "no image to image of")):
        with pytest.raises(SettingError, match=f"{name}' is not for PixArtSigmaPipeline: .*{why}"):
            require_methods(pipe, ["replace", name], "swap")
        with pytest.raises(SettingError, match=f"{name}' is not for PixArtSigmaPipeline: .*{why}"):
            require_editor(name, pipe, pairs("swap", 1))
    require_methods(pipe, ["same-seed", "p2p+auto", "masactrl"], "swap")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "photos", "--pairs", "5"], "of the suite photos write --count NUMBER"),
        (["--suite", "photos", "--kind", "style"], "'style': of the suite photos choose from"),
        (["--suite", "photos", "--inversions", "x"], "'x': choose from exact, pnp-inversion"),
        (["--suite", "photos", "--editors", "p3p"], "'p3p': choose from"),
        (["--suite", "photos", "--kind", "swap", "--editors", "move"], "move does nothing for"),
        (["--suite", "photos", "--methods", "p2p"], "no effect with --suite photos"),
        (["--suite", "photos", "--model", "x"], "pictures can be scored for sprites"),
        (["--suite", "edits", "--count", "5"], "it has no effect with --suite edits"),
        (["--inversions", "exact"], "it has no effect with --suite pairs"),
        (["--pairs", "1"], "1 is no number of pairs from 2 to"),
        (["--pairs", "nowhere"], "'nowhere': give a number, or a folder of pairs"),
        (["--pairs", "."], "has no mapping_file.json; the layout is that of PIE-Bench"),
        (["--pairs", ".", "--kind", "swap"], "it has no effect with --pairs FOLDER"),
    ],
)
def test_clear_errors(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["bench", "--out", str(tmp_path / "out"), *options])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("\u2502", " ").split())
