"""The quality of pictures, and the table of arms of guidance."""

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm

from attncontrol.batch.options import load_pipeline
from attncontrol.batch.results import append_lines
from attncontrol.bench import guidance
from attncontrol.bench.guidance import arms, middle, run
from attncontrol.bench.guidance_table import Row, markdown, read, table
from attncontrol.errors import ResultsError, SettingError
from attncontrol.sprites.objectives import OBJECTIVES
from attncontrol.sprites.quality import (
    Gaussian,
    Quality,
    frechet,
    gaussian,
    measure,
    redrawn,
    scene,
    sprite_iou,
)
from attncontrol.sprites.scenes import NOUNS, Thing, compose, render, sprite
from attncontrol.sprites.scorer import Detection, detect, features

CALL = {"num_inference_steps": 2, "guidance_scale": 2.0}
HEADS = [("mid_block.attentions.0.transformer_blocks.0.attn1", 1)]


@pytest.fixture(scope="module")
def pipe():
    loaded = load_pipeline("sprites")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_frechet_of_two_gaussians():
    spread = np.array([1.0, 4.0, 0.0])
    one = Gaussian(np.zeros(3), np.diag(spread))
    assert frechet(one, one) == 0
    other = Gaussian(np.array([3.0, 0, 4]), np.diag([9.0, 1.0, 0.25]))
    assert frechet(one, other) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2 + 0.5**2)
    rng = np.random.default_rng(0)
    rows, others = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(40, 6)) + 1
    product = sqrtm(np.cov(rows.T) @ np.cov(others.T)).real
    expected = ((rows.mean(0) - others.mean(0)) ** 2).sum() + np.trace(
        np.cov(rows.T) + np.cov(others.T) - 2 * product
    )
    assert frechet(gaussian(rows), gaussian(others)) == pytest.approx(expected, rel=1e-9)
    assert frechet(gaussian(others), gaussian(rows)) == pytest.approx(expected, rel=1e-9)


def test_counts_are_repetitions():
    rows = np.random.default_rng(1).normal(size=(4, 3))
    counted, repeated = gaussian(rows, np.array([2, 0, 1, 3])), gaussian(rows[[0, 0, 2, 3, 3, 3]])
    np.testing.assert_allclose(counted.mean, repeated.mean)
    np.testing.assert_allclose(counted.covariance, np.cov(rows[[0, 0, 2, 3, 3, 3]].T))
    with pytest.raises(ResultsError, match="needs two pictures, not 1"):
        gaussian(rows[:1])


def detection(noun, mask):
    rows, columns = np.nonzero(mask)
    box = (int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    return Detection(noun, "red", box, mask, 1.0)


def test_sprite_iou_knows_the_shape():
    """Of exact masks 1, whatever their place and size; of a full box the share that is ink; of
    another noun in between."""
    ink = np.asarray(sprite(Thing("balloon")).getchannel("A")) > 127
    mask = np.zeros((128, 128), dtype=bool)
    mask[20 : 20 + ink.shape[0], 30 : 30 + ink.shape[1]] = ink
    exact = detection("balloon", mask)
    assert sprite_iou([exact]) == 1
    left, top, width, height = exact.box
    box = np.zeros_like(mask)
    box[top : top + height, left : left + width] = True
    assert sprite_iou([detection("balloon", box)]) == pytest.approx(mask.sum() / box.sum())
    assert mask.sum() / box.sum() < 0.7
    assert sprite_iou([detection("glasses", mask)]) < 0.6
    assert sprite_iou([exact, detection("glasses", mask)]) == pytest.approx(
        (1 + sprite_iou([detection("glasses", mask)])) / 2
    )
    assert sprite_iou([]) == 0


def test_what_the_scorer_finds_of_clean_sprites_has_their_shape():
    pictures = [render(compose((Thing(noun),), np.random.default_rng(3)))[0] for noun in NOUNS]
    scores = OBJECTIVES["shape"](pictures, [""] * len(pictures))
    assert np.mean(scores) > 0.85
    assert min(scores) > 0.6
    torn = np.arange(128)[:, None, None] % 16 < 8
    wavy = [np.where(torn, np.roll(picture, 12, axis=1), picture) for picture in pictures]
    assert np.mean(OBJECTIVES["shape"](wavy, [""] * len(wavy))) < np.mean(scores) - 0.1


def test_texture_is_that_of_the_background():
    rippled, plain = (
        render(replace(compose((Thing("frog"),), np.random.default_rng(0)), background=(4, kind)))[
            0
        ]
        for kind in (3, 0)
    )
    high, low = OBJECTIVES["texture"]([rippled, Image.fromarray(plain)], ["", ""])
    assert high == pytest.approx(
        5 / 255 / 2**0.5, rel=0.1
    )  # a sine of amplitude 5, which the blur takes away
    assert low < 0.002


def test_measures_of_a_true_scene_and_of_nothing():
    true = next(scene(n) for n in range(9) if len(scene(n).named) == 2 and scene(n).named[0].color)
    picture, empty = render(true)[0], np.full((128, 128, 3), 190, np.uint8)
    swapped = (
        Thing(true.named[0].noun, "pink" if true.named[0].color != "pink" else "green"),
        true.named[1],
    )
    images = [Image.fromarray(array) for array in (picture, empty, picture, picture)]
    found = measure(images, [true.named, true.named, swapped, ()])
    assert [(q.present, q.bound) for q in found[:3]] == [(1, 1), (0, 0), (1, 0)]
    assert np.isnan([found[3].present, found[3].bound]).all()
    assert found[0].iou > 0.7
    assert (found[1].iou, found[1].confidence) == (0, 0)
    assert found[0].confidence == pytest.approx(
        np.mean([f.confidence for f in detect([picture])[0]])
    )
    np.testing.assert_allclose(found[0].features, features([picture])[0], atol=1e-4)
    assert len(found[0].features) == 96


def test_the_autoencoder_keeps_scenes(pipe):
    true = [scene(number) for number in range(3)]
    assert true == [scene(number) for number in range(3)]
    assert true != [scene(number, reference=True) for number in range(3)]
    for picture, each in zip(redrawn(pipe, true), true, strict=True):
        difference = np.abs(np.asarray(picture).astype(float) - render(each)[0]).mean()
        assert 0.5 < difference < 12


def test_arms(pipe):
    of = arms(pipe, guidance.ARMS, heads=HEADS, u=0.25, scale=2.0, scales={"cfg+pag": 1.0})
    assert [name for name in of if of[name].guided] == ["cfg", "cfg+pag", "cfg+seg", "cfg+softpag"]
    assert of["plain"].weakened is None
    assert of["softpag"].weakened.heads == HEADS
    assert (of["softpag"].weakened.edit.u, of["softpag"].scale) == (0.25, 2.0)
    assert [of[name].scale for name in ("pag", "cfg+pag", "cfg+seg")] == [2.0, 1.0, 2.0]
    assert of["plain"].call(CALL) == {"num_inference_steps": 2, "guidance_scale": 1.0}
    assert of["cfg"].call({"true_cfg_scale": 5.0}) == {"true_cfg_scale": 5.0}
    with pytest.raises(SettingError, match="no arm 'sag'; choose from plain, pag"):
        arms(pipe, ["sag"])
    with pytest.raises(SettingError, match="no arm 'slg'"):
        arms(pipe, ["pag"], scales={"slg": 1.0})
    with pytest.raises(SettingError, match="needs the heads of a search"):
        arms(pipe, ["cfg+softpag"])


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("sprites", ("mid_block.attentions.0.transformer_blocks.0.attn1",)),
        ("sprites-sd3", ("transformer_blocks.2.attn", "transformer_blocks.3.attn")),
        ("sprites-flux", ("single_transformer_blocks.1.attn",)),
        ("sprites-pixart", ("transformer_blocks.5.attn1", "transformer_blocks.6.attn1")),
    ],
)
def test_the_middle(model, layers):
    assert middle(load_pipeline(model)).layers == layers


def test_an_interrupted_run_goes_on(pipe, tmp_path):
    of = arms(pipe, ["plain", "pag", "softpag", "cfg"], heads=HEADS)
    run(pipe, of, range(2), tmp_path, batch=2, **CALL)
    whole = {name: read(tmp_path / f"{name}.jsonl") for name in of}
    assert all(list(rows) == [0, 1] for rows in whole.values())
    assert len({rows[0].quality.features for rows in whole.values()}) == 4
    store = tmp_path / "pag.jsonl"
    store.write_text(store.read_text()[:-40])  # as kill -9 leaves it
    assert list(read(store)) == [0]
    run(pipe, of, range(2), tmp_path, batch=2, **CALL)
    again = read(store)[1].quality
    np.testing.assert_allclose(
        again.features, whole["pag"][1].quality.features, atol=0.02
    )  # one picture rather than two at once
    assert again.iou == pytest.approx(whole["pag"][1].quality.iou, abs=0.02)
    assert {
        name: len(read(tmp_path / f"{name}.jsonl")) for name in ("reference", "true", *of)
    } == dict.fromkeys(("reference", "true", *of), 2)
    sizes = {file: file.stat().st_size for file in tmp_path.iterdir()}
    run(pipe, of, range(2), tmp_path, batch=2, **CALL)
    assert sizes == {file: file.stat().st_size for file in tmp_path.iterdir()}
    with pytest.raises(ResultsError, match="made with other settings"):
        run(pipe, of, range(2), tmp_path, batch=2, prompted=False, **CALL)


def rows(count, iou, shift, seconds):
    rng = np.random.default_rng(0)
    made = rng.normal(size=(count, 2)) + np.array([shift, 0])
    return [
        Row(n, seconds, Quality(iou, 0.5, float(n % 2), 0.0, tuple(map(float, made[n]))))
        for n in range(count)
    ]


def test_table_by_hand(tmp_path):
    for name, iou, shift, seconds in (
        ("reference", 1.0, 0, 1.0),
        ("true", 1.0, 0, 1.0),
        ("plain", 0.5, 2, 1.0),
        ("pag", 0.75, 1, 2.0),
    ):
        append_lines(tmp_path / f"{name}.jsonl", map(asdict, rows(100, iou, shift, seconds)))
    unpaired = Row(500, 1.0, Quality(0.0, 0.0, 0.0, 0.0, (9.0, 9.0)))  # which plain has not made
    append_lines(tmp_path / "pag.jsonl", [asdict(unpaired)])
    plain, true, pag = table(tmp_path, ["pag"])
    assert (plain["arm"], plain["n"], plain["frechet"], plain["iou"], plain["iou_gain"]) == (
        "plain",
        100,
        4.0,
        0.5,
        0.0,
    )
    assert plain["frechet_interval"] == [0, 0]
    assert (true["arm"], true["frechet"], true["frechet_gain"]) == ("true", 0.0, -4.0)
    assert (pag["frechet"], pag["frechet_gain"], pag["iou_gain"], pag["iou_interval"]) == (
        1.0,
        -3.0,
        0.25,
        [0.25, 0.25],
    )
    low, high = pag["frechet_interval"]
    assert -3.7 < low < -3.1
    assert -2.9 < high < -2.3
    assert (pag["present"], pag["time_ratio"]) == (0.5, 2.0)
    text = markdown([plain, true, pag]).splitlines()
    assert text[2] == "| plain | 100 | 4.0 | 50.0 | 50.0 | 50.0 | 0.0 | 1.0 |"
    assert "| 75.0 (+25.0; 25.0 to 25.0) |" in text[4]
    with pytest.raises(
        ResultsError, match="has 0 pictures that all of reference, true, plain, seg made"
    ):
        table(tmp_path, ["seg"])


def test_the_command(tmp_path, monkeypatch, capsys):
    options = [
        "guidance",
        "--arms",
        "pag,cfg",
        "--seeds",
        "0-1",
        "--steps",
        "1",
        "--out",
        str(tmp_path),
        "--unconditional",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", options)
    guidance.main()
    lines = json.loads(capsys.readouterr().out)
    assert [line["arm"] for line in lines] == ["plain", "true", "pag"]
    assert np.isnan(lines[0]["present"])
    monkeypatch.setattr(sys, "argv", ["guidance", "--arms", "softpag", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        guidance.main()
    assert "--heads heads.json" in capsys.readouterr().err
